import hashlib
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import digest


def _tables(draw_rows: int) -> pa.Table:
    return pa.table({"a": pa.array(range(draw_rows), pa.int64()), "b": pa.array([f"x{i}" for i in range(draw_rows)])})


ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.text(max_size=8)),
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        st.one_of(st.none(), st.booleans()),
        st.one_of(st.none(), st.floats(allow_nan=False)),
    ),
    max_size=12,
)


def _table(rows: list[tuple]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    types = (pa.string(), pa.int64(), pa.bool_(), pa.float64())
    return pa.table({n: pa.array(c, t) for n, c, t in zip("sibf", columns, types, strict=True)})


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, at=st.integers(0, 12))
def test_how_a_table_is_chunked_or_sliced_does_not_matter(rows, at):
    table = _table(rows)
    at = min(at, len(rows))
    chunked = pa.concat_tables([table.slice(0, at), table.slice(at)])
    sliced = pa.concat_tables([_table(rows[:1] * 3), table]).slice(len(rows[:1]) * 3)
    assert digest.of_table(chunked) == digest.of_table(table) == digest.of_table(sliced)


@settings(max_examples=60, deadline=None)
@given(one=ROWS, other=ROWS)
def test_different_content_has_another_digest(one, other):
    a, b = _table(one), _table(other)
    assert (digest.of_table(a) == digest.of_table(b)) == a.equals(b)


def test_text_cannot_move_from_one_row_to_the_next():
    assert digest.of_table(pa.table({"a": ["ab", "c"]})) != digest.of_table(pa.table({"a": ["a", "bc"]}))


def test_null_and_zero_and_empty_differ():
    for kind, value in ((pa.int64(), 0), (pa.string(), ""), (pa.bool_(), False)):
        null, zero = (pa.table({"a": pa.array([v], kind)}) for v in (None, value))
        assert digest.of_table(null) != digest.of_table(zero)


def test_names_and_types_count():
    base = pa.table({"a": pa.array([1], pa.int32())})
    assert digest.of_table(base) != digest.of_table(base.rename_columns(["b"]))
    assert digest.of_table(base) != digest.of_table(pa.table({"a": pa.array([1], pa.int64())}))


@pytest.mark.parametrize("cut", [1, 999, digest.BLOCK_ROWS - 1, digest.BLOCK_ROWS + 1])
def test_blocks_are_of_one_length_however_batches_come(cut):
    table = _tables(digest.BLOCK_ROWS * 2 + 5)
    blocks = list(digest.blocks(iter(table.to_batches(max_chunksize=max(cut, 997))), table.schema))
    assert [len(b) for b in blocks] == [digest.BLOCK_ROWS, digest.BLOCK_ROWS, 5]
    assert pa.concat_tables(blocks).equals(table)


def test_the_digest_is_sha256_over_names_validity_and_values_as_documented():
    """By hand, from the description in the module: a change here would orphan every snapshot that exists."""
    table = pa.table(
        {
            "user_id": pa.array(["a", "bc", None]),
            "timestamp": pa.array([0, 1, 2], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            "value": pa.array(np.array([0.5, -0.0, 2.0])),
        }
    )
    by_hand = b"user_id\0string\0timestamp\0timestamp[us, tz=UTC]\0value\0double\0"
    by_hand += struct.pack("<q", 3)
    by_hand += bytes([0b11000000]) + struct.pack("<3q", 1, 2, 0) + b"abc"
    by_hand += bytes([0b11100000]) + struct.pack("<3q", 0, 1, 2)
    by_hand += bytes([0b11100000]) + struct.pack("<3d", 0.5, 0.0, 2.0)
    assert digest.of_table(table) == hashlib.sha256(by_hand).hexdigest()
