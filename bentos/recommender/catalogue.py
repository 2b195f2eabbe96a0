"""The item catalogue of a retrieval bundle, memory-mapped; or one made of the ids of a static slate."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contracts.catalogue import Catalogue, Flags
from contracts.errors import ArtifactError
from contracts.ids import IdIndex, PackedIds
from registry.artifacts import Bundle

FEW = 64


class ArrowStrings(Sequence[str]):
    """A string column as a sequence: 0.3 µs an element, 0.06 µs in a `take` of many; no Python object an item."""

    def __init__(self, column: pa.Array) -> None:
        self._column = column
        if not pa.types.is_string(column.type):
            column = column.cast(pa.large_string())
        width = np.int32 if pa.types.is_string(column.type) else np.int64
        _, offsets, data = column.buffers()
        whole: NDArray[np.int32 | np.int64] = np.frombuffer(offsets, width)
        self._offsets = whole[column.offset : column.offset + len(column) + 1]
        self._data = memoryview(data) if data is not None else memoryview(b"")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if at < 0:
            at += len(self)
        if not 0 <= at < len(self):
            raise IndexError(at)
        return str(self._data[self._offsets[at] : self._offsets[at + 1]], "utf-8")

    def take(self, rows: NDArray[np.int32]) -> list[str]:
        """Many at once, none below 0.

        Raises:
            IndexError: a row is not there.
        """
        if len(rows) <= FEW:  # what pyarrow costs for one call is more than this
            data = self._data
            begins, ends = self._offsets[rows].tolist(), self._offsets[1:][rows].tolist()
            return [str(data[begin:end], "utf-8") for begin, end in zip(begins, ends, strict=True)]
        strings: list[str] = self._taken(rows).to_pylist()
        return strings

    def pack(self, rows: NDArray[np.int32]) -> PackedIds:
        """As `take`, without a Python string for each."""
        begins = self._offsets[rows]
        lengths = self._offsets[1:][rows] - begins
        starts = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(lengths, out=starts[1:])
        # One index for each byte. In a worker that has ranked meanwhile this takes a quarter of pyarrow's `take`.
        at = np.arange(starts[-1], dtype=np.int64)
        at += np.repeat(begins - starts[:-1], lengths)
        return PackedIds(starts.tobytes(), np.frombuffer(self._data, np.uint8)[at].tobytes())

    def _taken(self, rows: NDArray[np.int32]) -> pa.Array:
        at = np.ascontiguousarray(rows, np.int32)
        # `pa.array` imports pandas where it is installed: 24 MB and half a second of each worker's start.
        return self._column.take(pa.Array.from_buffers(pa.int32(), len(at), [None, pa.py_buffer(at)]))


def open_catalogue(bundle: Bundle) -> Catalogue:
    """
    Raises:
        ArtifactError: a file is missing, not Arrow, lacks a column, or its length is not the manifest's.
    """
    path = bundle.path("items.arrow")
    vocab = bundle.json("vocab.json")
    try:
        table = _read(str(path)).combine_chunks()
        ids = _one_array(table.column("item_id"))
        catalogue = Catalogue(
            item_ids=ArrowStrings(ids),
            index=open_ids(bundle, "item"),
            category=_column(table, "category", np.int32),
            categories=vocab["category"],
            creator=_column(table, "creator", np.int32),
            creators=vocab["creator"],
            price=_column(table, "price", np.float32),
            published_us=_column(table, "published_at", np.int64),
            is_promoted=_column(table, "is_promoted", np.bool_),
            flags=Flags(_column(table, "is_flagged", np.bool_)),
        )
    except (KeyError, OSError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} is not a catalogue: {error}") from error
    if len(catalogue) != bundle.manifest.n_items or len(catalogue.index) != len(catalogue):
        raise ArtifactError(f"{path} holds {len(catalogue)} items, the manifest says {bundle.manifest.n_items}")
    return catalogue


def open_ids(bundle: Bundle, what: str) -> IdIndex:
    """
    Raises:
        ArtifactError: a file is missing or damaged.
    """
    for part in ("ids", "rows"):
        bundle.path(f"{what}_{part}.npy")
    try:
        return IdIndex.open(bundle.folder, what)
    except (ValueError, EOFError) as error:
        raise ArtifactError(f"{bundle.folder}: {what}_ids.npy, {what}_rows.npy are no index: {error}") from error


def catalogue_of_ids(item_ids: Sequence[str]) -> Catalogue:
    """A catalogue that knows ids alone: what is left to serve from when the retrieval bundle is not there."""
    n = len(item_ids)
    return Catalogue(
        item_ids=list(item_ids),
        index=IdIndex.build(item_ids),
        category=np.full(n, -1, np.int32),
        categories=[],
        creator=np.full(n, -1, np.int32),
        creators=[],
        price=np.full(n, np.nan, np.float32),
        published_us=np.zeros(n, np.int64),
        is_promoted=np.zeros(n, np.bool_),
        flags=Flags(np.zeros(n, np.bool_)),
    )


def _read(path: str) -> pa.Table:
    source = pa.memory_map(path)
    try:
        return pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:  # the stream format has no footer
        source.seek(0)
        return pa.ipc.open_stream(source).read_all()


def _one_array(column: Any) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _column(table: pa.Table, name: str, dtype: Any) -> NDArray[Any]:
    """The file's own pages where the types agree. By buffer: `to_numpy` imports pandas where it is installed."""
    array = _one_array(table.column(name))
    if array.null_count:
        raise ValueError(f"{name} has nulls")
    if pa.types.is_boolean(array.type):
        bits = np.frombuffer(array.buffers()[1], np.uint8) if len(array) else np.empty(0, np.uint8)
        return np.unpackbits(bits, count=array.offset + len(array), bitorder="little")[array.offset :].astype(dtype)
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us", "UTC")).view(pa.int64())
    stored = np.dtype("f4" if pa.types.is_float32(array.type) else str(array.type).replace("double", "f8"))
    values = np.frombuffer(array.buffers()[1], stored) if len(array) else np.empty(0, stored)
    return np.ascontiguousarray(values[array.offset : array.offset + len(array)], dtype=dtype)
