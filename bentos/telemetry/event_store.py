"""The event log: `events.db`, written by one process. An event and its streaming features are one transaction."""

import contextlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts.errors import Unreachable
from contracts.events import Event
from features.item_counts import HOUR_US
from features.online.streaming import (
    EVENTS_DB,
    add_shown,
    advance_watermark,
    apply_events,
    create_streaming_tables,
    forget_counts,
    make_private,
)
from features.streaming import impression_events

_TABLES = (
    """CREATE TABLE IF NOT EXISTS events (
        seq INTEGER PRIMARY KEY,
        event_id TEXT NOT NULL UNIQUE,
        user_id TEXT NOT NULL,
        item_id TEXT NOT NULL,
        event TEXT NOT NULL,
        timestamp_us INTEGER NOT NULL,
        received_us INTEGER NOT NULL,
        request_id TEXT,
        position INTEGER,
        value REAL,
        context TEXT NOT NULL,
        schema INTEGER NOT NULL
    )""",
    # Which log this is: another online store remembers a position of it, which means nothing in a file made anew.
    "CREATE TABLE IF NOT EXISTS log (id TEXT NOT NULL)",
    "INSERT INTO log SELECT lower(hex(randomblob(16))) WHERE NOT EXISTS (SELECT 1 FROM log)",
)
_INSERT = """INSERT INTO events
    (event_id, user_id, item_id, event, timestamp_us, received_us, request_id, position, value, context, schema)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING"""
_AFTER = """SELECT seq, event_id, user_id, item_id, event, timestamp_us, received_us, request_id, position, value,
    context, schema FROM events WHERE seq > ? ORDER BY seq LIMIT ?"""


class EventStore:
    """The only writer of `events.db`. One thread at a time, but for `after`, which one other thread may call meanwhile.

    Args:
        home: the folder of `events.db`.
        not_interactions: names of events that change no streaming feature.

    Raises:
        Unreachable: the file cannot be opened or is no database.
    """

    def __init__(self, home: Path, *, not_interactions: frozenset[str] | None = None) -> None:
        self._path = home / EVENTS_DB
        self._forget_us = 0
        self._skip = impression_events() if not_interactions is None else not_interactions
        try:
            make_private(self._path)
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA busy_timeout = 5000")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            for statement in _TABLES:
                self._db.execute(statement)
            create_streaming_tables(self._db)
            (found,) = self._db.execute("SELECT id FROM log").fetchone()
            self.id = f"sqlite:{found}"
            self._reader = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise Unreachable(f"event store {self._path}: {error}") from error

    def append(self, batches: Sequence[Sequence[Event]]) -> list[tuple[int, int]]:
        """Store several batches in one transaction; (accepted, duplicates) of each. Durable on return, or nothing is.

        Raises:
            Unreachable: the disk is full or the file cannot be written.
        """
        db = self._db
        counts: list[tuple[int, int]] = []
        new: list[Event] = []
        try:
            db.execute("BEGIN IMMEDIATE")
            for batch in batches:
                accepted = 0
                for e in batch:
                    # rowcount of a skipped insert is 0: that is how a duplicate shows, also one within the batch
                    if db.execute(_INSERT, _row(e)).rowcount:
                        accepted += 1
                        new.append(e)
                counts.append((accepted, len(batch) - accepted))
            apply_events(db, new, self._skip)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise Unreachable(
                f"event store {self._path}: {error}", next_command="free disk space or check the folder's permissions"
            ) from error
        except BaseException:
            self._roll_back()
            raise
        return counts

    def _roll_back(self) -> None:
        """Never raises: SQLite rolls back by itself what a full disk interrupts."""
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def advance(self, now_us: int, taken: str | None = None) -> None:
        """Tell the features' readers that the stream is whole up to `now_us`, though no event came. Once an hour,
        forget what is in no window any more."""
        try:
            advance_watermark(self._db, now_us)
            if now_us >= self._forget_us:
                forget_counts(self._db, now_us)
                self._forget_us = now_us + HOUR_US
        except sqlite3.Error as error:
            raise Unreachable(f"event store {self._path}: {error}") from error

    def add_shown(self, source: str, hours: Mapping[tuple[int, str], int]) -> bool:
        """As an online store does: count exposures, each source once.

        Raises:
            Unreachable: the file cannot be written.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            new = add_shown(self._db, source, hours)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise Unreachable(f"event store {self._path}: {error}") from error
        return new

    def after(self, position: str, limit: int) -> tuple[list[Event], str]:
        """
        Raises:
            Unreachable: the file cannot be read.
        """
        try:
            rows = self._reader.execute(_AFTER, (int(position or 0), limit)).fetchall()
        except sqlite3.Error as error:
            raise Unreachable(f"event store {self._path}: {error}") from error
        events = [Event(*(*row[1:10], json.loads(row[10]), row[11])) for row in rows]
        return events, str(rows[-1][0]) if rows else position

    def close(self) -> None:
        self._db.close()
        self._reader.close()


def _row(e: Event) -> tuple[object, ...]:
    return (
        e.event_id,
        e.user_id,
        e.item_id,
        e.event,
        e.timestamp_us,
        e.received_us,
        e.request_id,
        e.position,
        e.value,
        json.dumps(e.context) if e.context else "{}",
        e.schema,
    )
