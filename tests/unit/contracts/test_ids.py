"""Ids to rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.catalogue.overlay import _Joined  # what a grown catalogue has for ids
from bentos.recommender.catalogue import ArrowStrings
from contracts.errors import DataError
from contracts.ids import IdIndex, ids_at, packed_at

IDS = st.text(max_size=6).filter(lambda text: not text.endswith("\0") and max(text, default="a") < "\ud800")


@given(st.lists(IDS, unique=True, max_size=20), st.lists(st.text(max_size=9), max_size=20))
def test_lookup_is_what_a_dictionary_says(ids: list[str], others: list[str]) -> None:
    index = IdIndex.build(ids)
    rows = {id_.encode(): row for row, id_ in enumerate(ids)}
    wanted = [*ids, *others]
    expected = [rows.get(id_.encode(errors="replace"), -1) for id_ in wanted]
    assert index.lookup_many(wanted).tolist() == expected
    assert [index.lookup(id_) for id_ in wanted] == expected


def test_an_id_that_begins_with_a_known_one_is_unknown() -> None:
    index = IdIndex.build(["abc", "b"])
    assert index.lookup_many(["abcd", "abc\0", "ab", "b", "abc"]).tolist() == [-1, -1, -1, 1, 0]


def test_an_index_that_was_saved_says_the_same(tmp_path: Path) -> None:
    IdIndex.build(["z", "a", "é"]).save(tmp_path, "item")
    assert IdIndex.open(tmp_path, "item").lookup_many(["a", "é", "z", "x"]).tolist() == [1, 2, 0, -1]


@pytest.mark.parametrize("ids", [["a", "b", "a"], ["a\0"]])
def test_ids_that_rows_cannot_tell_apart_are_refused(ids: list[str]) -> None:
    with pytest.raises(DataError):
        IdIndex.build(ids)


@given(st.lists(st.text(max_size=9), min_size=1, max_size=20), st.data())
def test_many_ids_at_once_are_those_that_each_row_has(ids: list[str], data: st.DataObject) -> None:
    ids = [id_.encode(errors="replace").decode() for id_ in ids]
    rows = np.array(data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=30)), np.int32)
    first = data.draw(st.integers(0, len(ids)))
    column = ArrowStrings(pa.array(ids, pa.string()))
    grown = _Joined(ArrowStrings(pa.array(ids[:first], pa.string())), ids[first:])
    expected = [ids[row] for row in rows.tolist()]
    assert ids_at(ids, rows) == ids_at(column, rows) == ids_at(grown, rows) == expected
    wide = ArrowStrings(pa.array(ids, pa.large_string()))
    for kept in (ids, column, wide, grown):
        assert packed_at(kept, rows).unpacked() == expected
