"""The live catalogue's file: one writer, readers beside it."""

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.catalogue.store import CatalogueReader, CatalogueStore
from bentos.catalogue.withheld import Withheld
from contracts.errors import Refused, Unreachable
from contracts.live_items import ItemChange, ItemFacts, ItemState, after


def put(item_id: str, category: str = "c", flagged: bool | None = None, at_us: int = 1) -> ItemChange:
    return ItemChange(item_id, "put", at_us, ItemFacts(category), flagged)


def flag(item_id: str, flagged: bool = True) -> ItemChange:
    return ItemChange(item_id, "flag", 1, flagged=flagged)


def remove(item_id: str) -> ItemChange:
    return ItemChange(item_id, "remove", 1)


CHANGES = st.builds(
    lambda id_, kind, at, category, flagged: {
        "put": ItemChange(id_, "put", at, ItemFacts(category), flagged),
        "flag": ItemChange(id_, "flag", at, flagged=bool(flagged)),
        "remove": ItemChange(id_, "remove", at),
    }[kind],
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["put", "flag", "remove"]),
    st.integers(1, 5),
    st.sampled_from(["x", "y"]),
    st.sampled_from([None, True, False]),
)


@given(st.lists(CHANGES, min_size=1, max_size=12))
def test_a_change_that_is_repeated_changes_nothing(changes: list[ItemChange]) -> None:
    state: ItemState | None = None
    for change in changes:
        state = after(state, change)
        again = after(state, ItemChange(change.item_id, change.kind, change.at_us + 7, change.facts, change.flagged))
        assert again == state


@given(st.lists(CHANGES, min_size=1, max_size=12), st.integers(1, 11))
def test_the_store_is_the_fold_of_the_changes_however_they_are_batched_and_repeated(
    tmp_path_factory: pytest.TempPathFactory, changes: list[ItemChange], cut: int
) -> None:
    home = tmp_path_factory.mktemp("h")
    store = CatalogueStore(home)
    for batch in filter(None, (changes[:cut], changes[cut:])):
        store.apply(batch)
        last = {c.item_id: c for c in batch}
        assert store.apply(list(last.values())[-1:]).changed == ()  # the last word of a batch, again
    expected: dict[str, ItemState] = {}
    for change in changes:
        expected[change.item_id] = after(expected.get(change.item_id), change)
    states = CatalogueReader(home).news().states
    assert {s.item_id: s.withheld for s in states} == {i: s.withheld for i, s in expected.items()}
    assert {s.item_id: s.facts for s in states} == {i: s.facts for i, s in expected.items()}
    ordinals = [s.ordinal for s in states if s.ordinal]
    assert sorted(ordinals) == list(range(1, len(ordinals) + 1))
    store.close()


def test_a_reader_gets_only_what_is_newer_and_all_of_it_from_another_file(tmp_path: Path) -> None:
    reader = CatalogueReader(tmp_path)
    assert reader.news().states == ()
    store = CatalogueStore(tmp_path)
    store.apply([put("a"), put("b")])
    first = reader.news()
    assert [s.item_id for s in first.states] == ["a", "b"]
    assert reader.news(first.identity, first.version).states == ()
    store.apply([flag("b")])
    news = reader.news(first.identity, first.version)
    assert [(s.item_id, s.withheld) for s in news.states] == [("b", True)]
    store.close()
    for file in tmp_path.iterdir():
        file.unlink()
    other = CatalogueStore(tmp_path)
    other.apply([put("z")])
    assert [s.item_id for s in reader.news(news.identity, news.version).states] == ["z"]
    other.close()


def test_a_put_leaves_a_flag_alone_unless_it_names_one_and_brings_a_removed_item_back(tmp_path: Path) -> None:
    store = CatalogueStore(tmp_path)
    store.apply([put("a"), flag("a")])
    store.apply([put("a", "d")])
    (state,) = CatalogueReader(tmp_path).news().states
    assert (state.flagged, state.withheld, state.facts) == (True, True, ItemFacts("d"))
    store.apply([put("a", "d", flagged=False)])
    store.apply([remove("a")])
    assert CatalogueReader(tmp_path).news().states[0].withheld
    store.apply([put("a", "d", at_us=9)])
    (state,) = CatalogueReader(tmp_path).news().states
    assert (state.withheld, state.first_us, state.ordinal) == (False, 1, 1)
    store.close()


def test_more_items_than_may_be_put_are_refused_whole_and_what_takes_down_never_is(tmp_path: Path) -> None:
    store = CatalogueStore(tmp_path, max_items=2)
    store.apply([put("a")])
    with pytest.raises(Refused, match="build a Bento"):
        store.apply([put("b"), put("c")])
    assert [s.item_id for s in CatalogueReader(tmp_path).news().states] == ["a"]
    store.apply([put("b"), put("a", "d"), flag("x"), remove("y"), remove("a")])
    assert len(CatalogueReader(tmp_path).news().states) == 4
    store.close()


def test_what_was_answered_is_there_after_a_kill_and_a_half_done_batch_is_not(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        store = CatalogueStore(tmp_path)
        store.apply([put("a"), flag("b")])
        with store._transaction() as db:
            db.execute("DELETE FROM items")
            os._exit(9)
    os.waitpid(pid, 0)
    assert {s.item_id: s.withheld for s in CatalogueReader(tmp_path).news().states} == {"a": False, "b": True}
    store = CatalogueStore(tmp_path)
    assert store.apply([flag("b")]).changed == ()
    store.close()


def test_a_file_that_is_no_database_is_named_by_reader_and_writer(tmp_path: Path) -> None:
    (tmp_path / "catalogue.db").write_bytes(b"not a database, and long enough to have a header" * 99)
    with pytest.raises(Unreachable, match=r"catalogue\.db"):
        CatalogueReader(tmp_path).news()
    with pytest.raises(Unreachable, match=r"catalogue\.db"):
        CatalogueStore(tmp_path)


def test_a_state_that_cannot_be_read_is_no_state(tmp_path: Path) -> None:
    store = CatalogueStore(tmp_path)
    store.apply([put("a")])
    store.close()
    with sqlite3.connect(tmp_path / "catalogue.db") as db:
        db.execute("UPDATE items SET state = 'x'")
    with pytest.raises(Unreachable, match=r"catalogue\.db"):
        CatalogueReader(tmp_path).news()


def test_a_gateway_knows_nothing_to_be_allowed_until_the_file_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "catalogue.db").write_bytes(b"no database" * 999)
    withheld = Withheld(tmp_path)
    withheld.look()
    assert withheld.ids is None
    assert withheld.problem
    (tmp_path / "catalogue.db").unlink()
    store = CatalogueStore(tmp_path)
    store.apply([flag("a"), remove("b"), put("c")])
    withheld.look()
    assert (withheld.ids, withheld.problem) == (frozenset({"a", "b"}), None)
    store.apply([flag("a", flagged=False), flag("c")])
    withheld.look()
    assert withheld.ids == frozenset({"b", "c"})
    store.close()
    for file in tmp_path.iterdir():
        file.unlink()
    withheld.look()
    assert withheld.ids == frozenset({"b", "c"})
    assert "is gone" in (withheld.problem or "")


@given(st.lists(st.lists(CHANGES, min_size=1, max_size=4), min_size=1, max_size=8))
def test_the_catalogue_can_be_had_as_of_every_version(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[ItemChange]]
) -> None:
    home = tmp_path_factory.mktemp("h")
    store, reader = CatalogueStore(home), CatalogueReader(home)
    identity = reader.news().identity
    expected: dict[int, dict[str, ItemState]] = {0: {}}
    for batch in batches:
        version = store.apply(batch).version
        expected[version] = {state.item_id: state for state in reader.news().states}
    assert {version: reader.at(identity, version) for version in expected} == expected
    assert reader.at(identity, max(expected) + 1) is None
    assert reader.at("another file", 0) is None
    store.close()
    reader.close()


def test_past_states_are_bounded_and_what_was_forgotten_is_not_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bentos.catalogue.store.PAST_STATES", 3)
    store, reader = CatalogueStore(tmp_path), CatalogueReader(tmp_path)
    for n in range(8):
        store.apply([put("a", str(n))])
    identity = reader.news().identity
    had = {version: reader.at(identity, version) for version in range(9)}
    known = {version: states["a"].facts.category for version, states in had.items() if states}  # type: ignore[union-attr]
    assert known == {5: "4", 6: "5", 7: "6", 8: "7"}
    store.close()
    reader.close()


def test_a_file_of_before_past_states_were_kept_begins_with_what_it_has(tmp_path: Path) -> None:
    store = CatalogueStore(tmp_path)
    for n in range(3):
        store.apply([put("a", str(n))])
    store.close()
    with sqlite3.connect(tmp_path / "catalogue.db") as db:
        db.execute("DROP TABLE past")
        db.execute("DROP TABLE horizon")
    reader = CatalogueReader(tmp_path)
    identity = reader.news().identity
    assert reader.at(identity, 3) is None
    store = CatalogueStore(tmp_path)
    store.apply([put("a", "new")])
    assert [version for version in range(5) if reader.at(identity, version)] == [3, 4]
    store.close()
    reader.close()
