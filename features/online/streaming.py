"""The streaming tables inside events.db. One process writes that file: the consumer, in the event's own transaction."""

import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from features.online import codec
from features.online.base import Interaction
from features.streaming import push

EVENTS_DB = "events.db"
STREAMING_SCHEMA = """
CREATE TABLE IF NOT EXISTS user_last (user_id TEXT PRIMARY KEY, last BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


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
            changed[user_id] = _read(connection, user_id, counted)
        changed[user_id] = push(changed[user_id], interaction)
    connection.executemany(
        "INSERT INTO user_last VALUES (?, ?) ON CONFLICT (user_id) DO UPDATE SET last = excluded.last",
        [(user_id, codec.encode_interactions(last)) for user_id, last in changed.items()],
    )
    advance_watermark(connection, max(i.timestamp_us for _, i in rows))


def advance_watermark(connection: sqlite3.Connection, until_us: int) -> None:
    """Say that the stream is whole up to `until_us`: after events, and by an idle consumer now and then, since
    otherwise a night without events looks like a dead stream. It never goes back."""
    connection.execute(
        "INSERT INTO stream VALUES ('watermark', ?)"
        " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        (until_us,),
    )


def _read(connection: sqlite3.Connection, user_id: str, corrupt: Counter[str]) -> tuple[Interaction, ...]:
    row = connection.execute("SELECT last FROM user_last WHERE user_id = ?", (user_id,)).fetchone()
    if row is None:
        return ()
    try:
        return codec.decode_interactions(row[0])
    except (ValueError, TypeError):
        corrupt["user_last_10_interactions"] += 1
        return ()
