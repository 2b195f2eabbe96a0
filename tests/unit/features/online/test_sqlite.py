"""What only the two files show: who writes which, what may be missing, and transactions of others."""

import asyncio
import os
import sqlite3
import stat
from collections import Counter
from pathlib import Path

import pytest

from contracts.errors import Unreachable
from features.online.base import Interaction, PrecomputedList, Stamped, UserState
from features.online.sqlite import ONLINE_DB, SqliteStore
from features.online.streaming import EVENTS_DB, advance_watermark, apply_interactions, create_streaming_tables

CLICK = Interaction("a", "click", 5)
TENURE = {"u": {"user_tenure_days": Stamped(1.0, 1)}}


def read(store: SqliteStore, user_id: str = "u") -> UserState:
    return asyncio.run(store.read_user(user_id))


@pytest.fixture
def events(tmp_path: Path) -> sqlite3.Connection:
    """The consumer's connection: it begins and commits by itself."""
    connection = sqlite3.connect(tmp_path / EVENTS_DB, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    create_streaming_tables(connection)
    return connection


def test_reading_makes_no_file_and_a_file_that_comes_later_is_found(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "home")
    assert read(store) == UserState("u")
    assert not (tmp_path / "home").exists()
    writer = SqliteStore(tmp_path / "home")
    writer.write_users(TENURE)
    assert read(store).batch["user_tenure_days"].value == 1.0
    assert not (tmp_path / "home" / EVENTS_DB).exists()
    writer.append_interactions([("u", CLICK)])
    assert read(store).last == (CLICK,)


def test_the_files_are_not_for_others_to_read(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = SqliteStore(tmp_path)
        store.write_users(TENURE)
        store.append_interactions([("u", CLICK)])
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in (ONLINE_DB, EVENTS_DB)} == {0o640}


def test_events_alone_are_enough(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.append_interactions([("u", CLICK)])
    assert read(store).last == (CLICK,)
    assert store.read_item_snapshot() is None
    assert not (tmp_path / ONLINE_DB).exists()


def test_a_file_whose_tables_are_yet_to_come_is_waited_for(tmp_path: Path, events: sqlite3.Connection) -> None:
    sqlite3.connect(tmp_path / ONLINE_DB).close()
    (tmp_path / ONLINE_DB).touch()
    store = SqliteStore(tmp_path)
    apply_interactions(events, [("u", CLICK)])
    assert read(store).last == (CLICK,)
    store.write_users(TENURE)
    assert read(store).batch["user_tenure_days"].value == 1.0


def test_an_interaction_is_seen_when_its_event_s_transaction_commits_and_not_before(
    tmp_path: Path, events: sqlite3.Connection
) -> None:
    store = SqliteStore(tmp_path)
    events.execute("BEGIN IMMEDIATE")
    apply_interactions(events, [("u", CLICK)])
    assert events.in_transaction
    assert read(store).last == ()
    events.execute("ROLLBACK")
    assert read(store).last == ()
    events.execute("BEGIN IMMEDIATE")
    create_streaming_tables(events)
    apply_interactions(events, [("u", CLICK)])
    advance_watermark(events, 3)
    assert events.in_transaction
    events.execute("COMMIT")
    assert read(store).last == (CLICK,)
    assert read(store).watermark_us == 5


def test_a_long_write_by_the_command_line_delays_no_reader(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.write_users(TENURE)
    writer = sqlite3.connect(tmp_path / ONLINE_DB, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM users")
    assert read(store).batch["user_tenure_days"].value == 1.0
    writer.execute("COMMIT")
    assert read(store) == UserState("u")


def test_a_writer_that_cannot_get_the_lock_is_unreachable_not_stuck(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, busy_ms=20)
    store.write_users(TENURE)
    other = sqlite3.connect(tmp_path / ONLINE_DB, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unreachable, match="locked"):
        store.write_users(TENURE)


def test_a_publication_that_fails_midway_leaves_the_old_lists(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    old = PrecomputedList(("x",), (1.0,), "s1", "m", 1, "all")
    store.publish_lists("s1", {"u": old})
    with pytest.raises(Unreachable):
        store.publish_lists("s2", {"u": old, None: old})  # type: ignore[dict-item]
    assert read(store).precomputed == old


def test_rubbish_in_a_row_is_counted_and_missing_and_the_next_event_mends_it(
    tmp_path: Path, events: sqlite3.Connection
) -> None:
    store = SqliteStore(tmp_path)
    store.write_users(TENURE)
    with sqlite3.connect(tmp_path / ONLINE_DB) as online:
        online.execute("UPDATE users SET features = x'c1'")
    events.execute("INSERT INTO user_last VALUES ('u', x'c1', x'c1')")
    assert read(store) == UserState("u")
    assert store.corrupt == {"user row": 1, "user_last_10_interactions": 1, "sessions": 1}
    corrupt: Counter[str] = Counter()
    apply_interactions(events, [("u", CLICK)], corrupt=corrupt)
    assert corrupt == {"user_last_10_interactions": 1, "sessions": 1}
    assert read(store).last == (CLICK,)


def test_text_where_bytes_belong_is_corrupt_too(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.write_users(TENURE)
    with sqlite3.connect(tmp_path / ONLINE_DB) as online:
        online.execute("UPDATE users SET features = 'text'")
    assert read(store).batch == {}
    assert store.corrupt == {"user row": 1}


def test_a_closed_store_opens_again_at_the_next_read(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.write_users(TENURE)
    read(store)
    store.close()
    store.close()
    assert read(store).batch["user_tenure_days"].value == 1.0
