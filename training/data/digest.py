"""SHA-256 over the content of a table: names, types and values, not how a Parquet writer laid them out.

A column enters as its validity, then its values with nulls set to zero; text as lengths and bytes. Rows enter in blocks
of a fixed length, so how a reader happened to cut batches does not matter.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLOCK_ROWS = 1 << 17


class ContentHash:
    """Feed blocks of BLOCK_ROWS rows (the last may be shorter), then read `hexdigest`."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sha = hashlib.sha256()
        for field in schema:
            self._sha.update(f"{field.name}\0{field.type}\0".encode())

    def update(self, block: pa.Table) -> None:
        self._sha.update(len(block).to_bytes(8, "little"))
        for column in block.columns:
            for part in _buffers(column.combine_chunks()):
                self._sha.update(part)

    def hexdigest(self) -> str:
        return self._sha.hexdigest()


def of_table(table: pa.Table) -> str:
    """The digest of a whole table."""
    content = ContentHash(table.schema)
    for start in range(0, max(len(table), 1), BLOCK_ROWS):
        content.update(table.slice(start, BLOCK_ROWS))
    return content.hexdigest()


def blocks(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Batches of any length as tables of BLOCK_ROWS rows, the last shorter."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += len(batch)
        while rows >= BLOCK_ROWS:
            table = pa.Table.from_batches(held, schema)
            yield table.slice(0, BLOCK_ROWS)
            held = table.slice(BLOCK_ROWS).to_batches()
            rows -= BLOCK_ROWS
    if rows:
        yield pa.Table.from_batches(held, schema)


def _buffers(column: pa.Array | pa.ChunkedArray) -> Iterator[memoryview]:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = array.type
    yield memoryview(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).data).cast("B")
    if pa.types.is_null(kind):
        return
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        full = pc.fill_null(array, "" if not pa.types.is_binary(kind) else b"").cast(pa.large_binary())
        _, offsets, data = full.buffers()
        at = np.frombuffer(offsets, dtype=np.int64)[full.offset : full.offset + len(full) + 1]
        yield memoryview(np.ascontiguousarray(np.diff(at)).data).cast("B")
        if data is not None and len(full):
            yield memoryview(data)[int(at[0]) : int(at[-1])]
        return
    if pa.types.is_temporal(kind):
        array = array.cast(pa.int64() if kind.bit_width == 64 else pa.int32())
    values = pc.fill_null(array, False if pa.types.is_boolean(kind) else 0).to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        values = values + 0.0  # -0.0 and 0.0 are one value
    yield memoryview(np.ascontiguousarray(values).data).cast("B")
