"""The event log as a table: for export and analysis, beside a running consumer."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from bentos.telemetry.event_logs import is_redis
from contracts.errors import Unreachable
from contracts.events import Event
from features.online.streaming import EVENTS_DB

EVENTS_ARROW = pa.schema(
    [
        ("event_id", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event", pa.string()),
        ("timestamp_us", pa.int64()),
        ("received_us", pa.int64()),
        ("request_id", pa.string()),
        ("position", pa.int32()),
        ("value", pa.float64()),
        ("context", pa.map_(pa.string(), pa.string())),
        ("schema", pa.int32()),
    ]
)
_CHUNK = 100_000


def read_events(
    home: Path, since_us: int | None = None, until_us: int | None = None, *, event_log: str = "sqlite"
) -> pa.Table:
    """Events with `since_us` ≤ timestamp < `until_us`, in the order in which they were accepted, each once.

    Args:
        event_log: as in the settings.

    Raises:
        Unreachable: the file is no event store, or Redis is away.
    """
    if is_redis(event_log):
        return _of_stream(event_log, since_us, until_us)
    path = home / EVENTS_DB
    if not path.exists():
        return EVENTS_ARROW.empty_table()
    batches: list[pa.RecordBatch] = []
    names = EVENTS_ARROW.names
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            cursor = db.execute(
                f"SELECT {', '.join(names)} FROM events WHERE timestamp_us >= ? AND timestamp_us < ? ORDER BY seq",  # noqa: S608
                (since_us if since_us is not None else -(1 << 62), until_us if until_us is not None else 1 << 62),
            )
            while rows := cursor.fetchmany(_CHUNK):
                columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
                columns["context"] = [list(json.loads(c).items()) for c in columns["context"]]
                batches.append(pa.RecordBatch.from_pydict(columns, schema=EVENTS_ARROW))
    except sqlite3.Error as error:
        if "no such table" in str(error):  # a store that has just been made
            return EVENTS_ARROW.empty_table()
        raise Unreachable(f"event store {path}: {error}") from error
    return pa.Table.from_batches(batches, schema=EVENTS_ARROW)


def forget_events(home: Path, user_id: str, *, event_log: str = "sqlite", dry_run: bool = False) -> int:
    """Remove every event of one user; how many there were. An event that is sent again afterwards is a new one where
    the log is `events.db`; Redis remembers the ids, as hashes, for its window.

    Raises:
        Unreachable: the log is away or cannot be written.
    """
    if is_redis(event_log):
        from bentos.telemetry.event_stream import RedisEventLog

        log = RedisEventLog(event_log)
        try:
            return log.forget(user_id, dry_run=dry_run)
        finally:
            log.close()
    path = home / EVENTS_DB
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as db:
            if dry_run:
                return int(db.execute("SELECT count(*) FROM events WHERE user_id = ?", (user_id,)).fetchone()[0])
            db.execute("PRAGMA secure_delete = ON")  # else the words stay in free pages of the file
            gone = db.execute("DELETE FROM events WHERE user_id = ?", (user_id,)).rowcount
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return gone
    except sqlite3.Error as error:
        if "no such table" in str(error):
            return 0
        raise Unreachable(f"event store {path}: {error}") from error


def hidden_users(table: pa.Table, hide: Callable[[str], str] | None) -> pa.Table:
    """A table with a column `user_id`, as the logs of answers name the users."""
    if hide is None or not table.num_rows:
        return table
    distinct = table["user_id"].combine_chunks().dictionary_encode()
    names = pa.array([hide(user) for user in distinct.dictionary.to_pylist()], pa.string())
    return table.set_column(table.schema.get_field_index("user_id"), "user_id", names.take(distinct.indices))


def table_of(events: Sequence[Event]) -> pa.Table:
    columns = {name: [getattr(e, name) for e in events] for name in EVENTS_ARROW.names}
    columns["context"] = [list(c.items()) for c in columns["context"]]
    return pa.Table.from_pydict(columns, schema=EVENTS_ARROW)


def _of_stream(url: str, since_us: int | None, until_us: int | None) -> pa.Table:
    from bentos.telemetry.event_stream import RedisEventLog, position_before

    log = RedisEventLog(url)
    position = position_before(since_us)
    tables: list[pa.Table] = []
    try:
        while True:
            events, to = log.after(position, _CHUNK // 10)
            if to == position:
                return pa.concat_tables(tables) if tables else EVENTS_ARROW.empty_table()
            position = to
            kept = [
                e
                for e in events
                if (since_us is None or e.timestamp_us >= since_us) and (until_us is None or e.timestamp_us < until_us)
            ]
            tables.append(table_of(kept))
    finally:
        log.close()
