import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from bentos.telemetry.event_log import EVENTS_ARROW, read_events
from bentos.telemetry.event_store import EventStore
from contracts.errors import Unreachable
from contracts.events import Event
from features.online.sqlite import SqliteStore


def event(event_id: str, item: str = "i1", at_us: int = 1_000, name: str = "click", **more: object) -> Event:
    return Event(event_id, "u1", item, name, at_us, at_us + 5, **more)  # type: ignore[arg-type]


def last(home: Path) -> list[str]:
    store = SqliteStore(home)
    try:
        return [i.item_id for i in asyncio.run(store.read_user("u1")).last]
    finally:
        store.close()


def test_an_event_counts_once_within_a_batch_across_batches_and_across_lives(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    assert store.append([[event("a"), event("b"), event("a")], [event("b"), event("c")]]) == [(2, 1), (1, 1)]
    store.close()
    store = EventStore(tmp_path)
    assert store.append([[event("c"), event("d")]]) == [(1, 1)]
    store.close()
    assert read_events(tmp_path)["event_id"].to_pylist() == ["a", "b", "c", "d"]


def test_what_was_sent_is_what_is_read(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    store.append([[event("a", request_id="r", position=3, value=2.5, context={"device": "ios"}), event("b")]])
    store.close()
    table = read_events(tmp_path)
    assert table.schema == EVENTS_ARROW
    first, second = table.to_pylist()
    assert (first["request_id"], first["position"], first["value"]) == ("r", 3, 2.5)
    assert dict(first["context"]) == {"device": "ios"}
    assert (second["request_id"], second["position"], second["value"], second["context"]) == (None, None, None, [])


def test_events_are_read_by_half_open_intervals(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    store.append([[event(str(i), at_us=i) for i in range(5)]])
    store.close()
    assert read_events(tmp_path, 1, 3)["event_id"].to_pylist() == ["1", "2"]


def test_the_last_interactions_change_with_the_event_and_not_with_its_repeat(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    store.append([[event("a", "i1", 1_000), event("b", "i2", 2_000), event("c", "i3", 3_000, "impression")]])
    assert last(tmp_path) == ["i2", "i1"]  # an impression is no interaction
    store.append([[event("a", "i9", 9_000)]])  # the same id again: the first one holds
    assert last(tmp_path) == ["i2", "i1"]
    store.close()


def test_a_transaction_that_fails_stores_neither_event_nor_feature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EventStore(tmp_path)
    store.append([[event("a", "i1")]])

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("bentos.telemetry.event_store.apply_events", fail)
        with pytest.raises(Unreachable, match="disk is full"):
            store.append([[event("b", "i2")]])
    assert read_events(tmp_path)["event_id"].to_pylist() == ["a"]
    assert store.append([[event("b", "i2")]]) == [(1, 0)]
    assert last(tmp_path) == ["i1", "i2"][::-1]
    store.close()


def test_a_full_disk_is_an_error_of_ours_and_passes(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    db = store._db
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0] + 2}")
    with pytest.raises(Unreachable, match="full"):
        store.append([[event(str(i), context={"k": "x" * 200}) for i in range(1_000)]])
    assert len(read_events(tmp_path)) == 0
    db.execute("PRAGMA max_page_count = 1000000")
    assert store.append([[event("a")]]) == [(1, 0)]
    store.close()


def test_the_files_of_the_store_are_not_for_others_to_read(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = EventStore(tmp_path)
        store.append([[event("a")]])
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("events.db*")}
    store.close()
    assert modes == dict.fromkeys(("events.db", "events.db-wal", "events.db-shm"), 0o640)


def test_a_file_that_is_no_database_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "events.db").write_bytes(b"x" * 5_000)
    with pytest.raises(Unreachable, match=r"events\.db"):
        EventStore(tmp_path)
    with pytest.raises(Unreachable, match=r"events\.db"):
        read_events(tmp_path)
