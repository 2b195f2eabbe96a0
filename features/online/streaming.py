"""The streaming tables inside events.db. One process writes that file: the consumer, in the event's own transaction."""

import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts.events import Event
from features.decayed import Decayed
from features.item_counts import (
    DAY_H,
    HOUR_US,
    KEEP_DECAYED_US,
    KEEP_HOURS,
    Count,
    ItemCounts,
    Key,
    by_day,
    count_events,
    decay,
    item_counts,
    parts,
    shown,
    window,
)
from features.online import codec
from features.online.base import Interaction
from features.sessions import Session
from features.streaming import fold, push

EVENTS_DB = "events.db"
STREAMING_SCHEMA = """
CREATE TABLE IF NOT EXISTS user_last (user_id TEXT PRIMARY KEY, last BLOB NOT NULL, sessions BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (log TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shown_sources (source TEXT PRIMARY KEY, hour INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS item_decayed (
    item_id TEXT, event TEXT, grade INTEGER, value REAL NOT NULL, at_us INTEGER NOT NULL,
    PRIMARY KEY (item_id, event, grade)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS item_hours (
    hour INTEGER, item_id TEXT, event TEXT, grade INTEGER,
    n INTEGER NOT NULL, valued INTEGER NOT NULL, share_nano INTEGER NOT NULL,
    PRIMARY KEY (hour, item_id, event, grade)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS item_days (
    day INTEGER, item_id TEXT, event TEXT, grade INTEGER,
    n INTEGER NOT NULL, valued INTEGER NOT NULL, share_nano INTEGER NOT NULL,
    PRIMARY KEY (day, item_id, event, grade)) WITHOUT ROWID;
"""
_COUNTS = "item_id, event, grade, n, valued, share_nano"
_ADD_HOUR = """INSERT INTO item_hours VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (hour, item_id, event, grade) DO UPDATE SET
    n = n + excluded.n, valued = valued + excluded.valued, share_nano = share_nano + excluded.share_nano"""
_ADD_DAY = _ADD_HOUR.replace("item_hours", "item_days").replace("(hour,", "(day,")


def make_private(path: Path) -> None:
    """Make an empty file for a new database, 0640: ids of users are in it. SQLite gives its mode to `-wal` and `-shm`.

    Raises:
        OSError: there is no such folder, or no room.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))


def create_streaming_tables(connection: sqlite3.Connection) -> None:
    """Idempotent. Runs statement by statement, so that it commits no transaction the caller has open."""
    for statement in filter(str.strip, STREAMING_SCHEMA.split(";")):
        connection.execute(statement)
    if not has_sessions(connection, "main"):  # a file of an earlier version
        connection.execute("ALTER TABLE user_last ADD COLUMN sessions BLOB")


def has_sessions(connection: sqlite3.Connection, schema: str) -> bool:
    """Whether the file is there in full: this column came last."""
    found = connection.execute(
        "SELECT 1 FROM pragma_table_info('user_last', ?) WHERE name = 'sessions'", (schema,)
    ).fetchone()
    return found is not None


def apply_events(
    connection: sqlite3.Connection,
    events: Sequence[Event],
    skip: frozenset[str],
    *,
    corrupt: Counter[str] | None = None,
) -> None:
    """Fold new events into every streaming feature and raise the watermark.

    Within the caller's transaction, which it neither begins nor ends. Not idempotent: each event once.

    Args:
        skip: names of events that are no interactions; they count for the session and the item all the same.
    """
    if not events:
        return
    counted: Counter[str] = Counter() if corrupt is None else corrupt
    users: dict[str, tuple[tuple[Interaction, ...], tuple[Session, ...]]] = {}
    for e in events:
        users[e.user_id] = fold(*(users.get(e.user_id) or _read(connection, e.user_id, counted)), e, skip)
    connection.executemany(
        "INSERT INTO user_last VALUES (?, ?, ?)"
        " ON CONFLICT (user_id) DO UPDATE SET last = excluded.last, sessions = excluded.sessions",
        [
            (user_id, codec.encode_interactions(last), codec.encode_sessions(sessions))
            for user_id, (last, sessions) in users.items()
        ],
    )
    _count(connection, events)
    advance_watermark(connection, max(e.timestamp_us for e in events))


def _count(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
    new = count_events(events)
    _add_hours(connection, new.hours)
    changed = []
    for key, moments in new.decays.items():
        found = connection.execute(
            "SELECT value, at_us FROM item_decayed WHERE item_id = ? AND event = ? AND grade = ?", key
        ).fetchone()
        state = decay(Decayed(*found) if found else Decayed(), moments)
        changed.append((*key, state.value, state.timestamp_us))
    connection.executemany("INSERT OR REPLACE INTO item_decayed VALUES (?, ?, ?, ?, ?)", changed)


def _add_hours(connection: sqlite3.Connection, hours: Mapping[tuple[int, Key], Count]) -> None:
    """By the hour for the ends of a window, and by the day for what lies between them."""
    for statement, counts in ((_ADD_HOUR, hours), (_ADD_DAY, by_day(hours))):
        connection.executemany(statement, [(at, *key, *count) for (at, key), count in counts.items()])


def add_shown(connection: sqlite3.Connection, source: str, hours: Mapping[tuple[int, str], int]) -> bool:
    """`OnlineStore.add_shown`, within the caller's transaction."""
    newest = max((hour for hour, _ in hours), default=0)
    if not connection.execute("INSERT OR IGNORE INTO shown_sources VALUES (?, ?)", (source, newest)).rowcount:
        return False
    _add_hours(connection, shown(hours))
    return True


def read_item_counts(connection: sqlite3.Connection, now_us: int, schema: str = "main") -> ItemCounts:
    """The counts of all items. A pass over a week of hours: for the background."""
    first, last = window(now_us)
    decayed = connection.execute(f"SELECT item_id, event, grade, value, at_us FROM {schema}.item_decayed")  # noqa: S608
    days, (before, after) = parts(first, last)
    week = connection.execute(
        f"""SELECT item_id, event, grade, sum(n), sum(valued), sum(share_nano) FROM (
            SELECT {_COUNTS} FROM {schema}.item_days WHERE day BETWEEN ? AND ?
            UNION ALL SELECT {_COUNTS} FROM {schema}.item_hours WHERE hour BETWEEN ? AND ?
            UNION ALL SELECT {_COUNTS} FROM {schema}.item_hours WHERE hour BETWEEN ? AND ?
        ) GROUP BY item_id, event, grade""",  # noqa: S608
        [bound for part in (days, before, after) for bound in (part.start, part.stop - 1)],
    )
    (since,) = connection.execute(
        f"SELECT min(hour) FROM {schema}.item_hours WHERE hour BETWEEN ? AND ?",  # noqa: S608
        (first, last),
    ).fetchone()
    return item_counts(
        now_us,
        {Key(*row[:3]): Decayed(*row[3:]) for row in decayed},
        {Key(*row[:3]): Count(*row[3:]) for row in week},
        since,
    )


def forget_counts(connection: sqlite3.Connection, now_us: int) -> None:
    """Remove what is in no window any more."""
    connection.execute("DELETE FROM item_hours WHERE hour < ?", (now_us // HOUR_US - KEEP_HOURS,))
    connection.execute("DELETE FROM item_days WHERE day < ?", ((now_us // HOUR_US - KEEP_HOURS) // DAY_H,))
    # A source that is offered again after so long has nothing in a window either.
    connection.execute("DELETE FROM shown_sources WHERE hour < ?", (now_us // HOUR_US - 2 * KEEP_HOURS,))
    connection.execute("DELETE FROM item_decayed WHERE at_us < ?", (now_us - KEEP_DECAYED_US,))


def apply_interactions(
    connection: sqlite3.Connection,
    rows: Sequence[tuple[str, Interaction]],
    *,
    corrupt: Counter[str] | None = None,
) -> None:
    """Fold interactions (no impressions: `features.streaming.impression_events`) into `last` and raise the watermark.

    Within the caller's transaction, which it neither begins nor ends. Applying a row again changes nothing.
    """
    if not rows:
        return
    counted: Counter[str] = Counter() if corrupt is None else corrupt
    changed: dict[str, tuple[Interaction, ...]] = {}
    for user_id, interaction in rows:
        if user_id not in changed:
            changed[user_id], _ = _read(connection, user_id, counted)
        changed[user_id] = push(changed[user_id], interaction)
    connection.executemany(
        "INSERT INTO user_last (user_id, last) VALUES (?, ?) ON CONFLICT (user_id) DO UPDATE SET last = excluded.last",
        [(user_id, codec.encode_interactions(last)) for user_id, last in changed.items()],
    )
    advance_watermark(connection, max(i.timestamp_us for _, i in rows))


def position(connection: sqlite3.Connection, log: str) -> str:
    found = connection.execute("SELECT position FROM positions WHERE log = ?", (log,)).fetchone()
    return found[0] if found else ""


def move_position(connection: sqlite3.Connection, log: str, to: str) -> None:
    connection.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (log, to))


def advance_watermark(connection: sqlite3.Connection, until_us: int) -> None:
    """Say that the stream is whole up to `until_us`: after events, and by an idle consumer now and then, since
    otherwise a night without events looks like a dead stream. It never goes back."""
    connection.execute(
        "INSERT INTO stream VALUES ('watermark', ?)"
        " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        (until_us,),
    )


def _read(
    connection: sqlite3.Connection, user_id: str, corrupt: Counter[str]
) -> tuple[tuple[Interaction, ...], tuple[Session, ...]]:
    row = connection.execute("SELECT last, sessions FROM user_last WHERE user_id = ?", (user_id,)).fetchone()
    if row is None:
        return (), ()
    try:
        last = codec.decode_interactions(row[0])
    except (ValueError, TypeError):
        corrupt["user_last_10_interactions"] += 1
        last = ()
    return last, codec.sessions_of(row[1], corrupt)
