"""A model file whose large tables stay in the file: ONNX Runtime maps them, so that worker processes share one copy.

An ONNX file is a protobuf message, and its tables are byte strings inside it. The runtime copies those for each
session (128 MB for the item table of 200,000 items), but maps what a model calls "external data". So the model is
handed to it as a message without the large tables, each of which is named as external data that lies at its place in
the same file. The file is as it was; this needs the wire format of protobuf
(https://protobuf.dev/programming-guides/encoding/) and five field numbers of onnx.proto3.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

LARGE = 1 << 20  # bytes: what is smaller is copied

# Field numbers of onnx.proto3.
MODEL_GRAPH = 7
GRAPH_INITIALIZER = 5
TENSOR_RAW_DATA, TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION = 9, 13, 14
EXTERNAL = 1

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def without_large_tables(path: Path) -> bytes | None:
    """The model of `path` as a message that reads its large tables from there; None where it has none.

    Raises:
        ValueError: not a protobuf message.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as model:
        found = 0
        parts = []
        for number, start, begin, end in _fields(model, 0, len(model)):
            if number != MODEL_GRAPH:
                parts.append(model[start:end])
                continue
            graph = []
            for inner, at, first, last in _fields(model, begin, end):
                if inner == GRAPH_INITIALIZER and last - first > LARGE:
                    tensor, moved = _tensor(model, first, last, path.name)
                    graph.append(_bytes(GRAPH_INITIALIZER, tensor))
                    found += moved
                else:
                    graph.append(model[at:last])
            parts.append(_bytes(MODEL_GRAPH, b"".join(graph)))
        return b"".join(parts) if found else None


def _tensor(model: mmap.mmap, begin: int, end: int, location: str) -> tuple[bytes, bool]:
    """A TensorProto, its raw data named by place if it is large and can be read from there."""
    parts, moved = [], b""
    for number, start, first, last in _fields(model, begin, end):
        if number == TENSOR_RAW_DATA and last - first > LARGE:
            entries = {"location": location, "offset": str(first), "length": str(last - first)}
            moved = (
                b"".join(
                    _bytes(TENSOR_EXTERNAL_DATA, _bytes(1, key.encode()) + _bytes(2, value.encode()))
                    for key, value in entries.items()
                )
                + _varint(TENSOR_DATA_LOCATION << 3 | VARINT)
                + _varint(EXTERNAL)
            )
        else:
            parts.append(model[start:last])
    return b"".join(parts) + moved, bool(moved)


def _fields(model: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Field number, where the field starts, and where its content begins and ends."""
    while at < end:
        start = at
        tag, at = _read_varint(model, at, end)
        kind = tag & 7
        if kind == VARINT:
            begin = at
            _, at = _read_varint(model, at, end)
        elif kind in (FIXED64, FIXED32):
            begin, at = at, at + (8 if kind == FIXED64 else 4)
        elif kind == BYTES:
            length, begin = _read_varint(model, at, end)
            at = begin + length
        else:
            raise ValueError(f"no protobuf message: wire type {kind} at byte {start}")
        if at > end:
            raise ValueError(f"no protobuf message: a field at byte {start} ends after its message")
        yield tag >> 3, start, begin, at


def _read_varint(model: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = model[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError(f"no protobuf message: a number at byte {at} has no end")


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _bytes(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | BYTES) + _varint(len(content)) + content
