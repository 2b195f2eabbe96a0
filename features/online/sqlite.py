"""The embedded online store: online.db (batch features, lists, item snapshot) and events.db (what was streamed).

Two files because two writers on one file stall each other: the CLI writes online.db, the consumer events.db. A read
attaches both, read-only, and takes everything about a user in one statement. Either file may not be there yet.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.errors import Unreachable
from contracts.events import Event
from features.item_counts import ItemCounts, item_counts
from features.online import codec
from features.online.base import Interaction, ItemSnapshot, PrecomputedList, Stamped, UserState
from features.online.streaming import (
    EVENTS_DB,
    add_shown,
    advance_watermark,
    apply_events,
    apply_interactions,
    create_streaming_tables,
    forget_counts,
    has_sessions,
    make_private,
    move_position,
    position,
    read_item_counts,
)
from features.streaming import impression_events

ONLINE_DB = "online.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS users (user_id TEXT PRIMARY KEY, features BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lists (user_id TEXT PRIMARY KEY, list BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS item_snapshot (
    one INTEGER PRIMARY KEY CHECK (one = 1), version TEXT NOT NULL, snapshot BLOB NOT NULL);
"""
_FROM_ONLINE = """
SELECT 0, features, NULL FROM online.users WHERE user_id = ?1
UNION ALL SELECT 1, list, NULL FROM online.lists WHERE user_id = ?1
"""
_FROM_EVENTS = """
SELECT 2, last, sessions FROM events.user_last WHERE user_id = ?1
UNION ALL SELECT 3, value, NULL FROM events.stream WHERE name = 'watermark'
"""


class SqliteStore:
    """
    Args:
        home: the folder of both files.
        busy_ms: how long a write waits for another writer. Reads never wait: the files are in WAL mode.

    `corrupt` counts values that could not be read, by name.
    """

    def __init__(self, home: Path, *, busy_ms: int = 5_000) -> None:
        self.corrupt: Counter[str] = Counter()
        self._home = home
        self._busy_ms = busy_ms
        self._reader: sqlite3.Connection | None = None
        self._attached: tuple[str, ...] = ()
        self._statement = ""

    async def read_user(self, user_id: str) -> UserState:
        """Tens of microseconds, on the calling thread: a hop to another one would cost more than the read."""
        features: dict[str, tuple[int, bytes]] = {}
        streamed: tuple[Interaction, ...] = ()
        precomputed: bytes | None = None
        watermark: int | None = None
        sessions: bytes | None = None
        for kind, value, beside in self._select(user_id):
            if kind == 0:
                features = codec.decode_row(value, self.corrupt)
            elif kind == 1:
                precomputed = value
            elif kind == 2:
                sessions = beside
                try:
                    streamed = codec.decode_interactions(value)
                except (ValueError, TypeError):
                    self.corrupt["user_last_10_interactions"] += 1
            elif isinstance(value, int):
                watermark = value
        return codec.user_state(user_id, features, streamed, precomputed, watermark, self.corrupt, sessions)

    def write_users(self, rows: Mapping[str, Mapping[str, Stamped]]) -> None:
        with self._writing(ONLINE_DB) as db:
            merged = []
            for user_id, features in rows.items():
                new = {n: (s.timestamp_us, codec.encode_value(n, s.value)) for n, s in features.items()}
                found = db.execute("SELECT features FROM users WHERE user_id = ?", (user_id,)).fetchone()
                old = codec.decode_row(found[0], self.corrupt) if found else {}
                merged.append((user_id, codec.encode_row(codec.merge_row(old, new))))
            db.executemany(
                "INSERT INTO users VALUES (?, ?) ON CONFLICT (user_id) DO UPDATE SET features = excluded.features",
                merged,
            )

    def append_interactions(self, rows: Sequence[tuple[str, Interaction]]) -> None:
        """For tests and for replays into a store of one's own; where a consumer runs, it is the one writer."""
        with self._writing(EVENTS_DB) as db:
            apply_interactions(db, rows, corrupt=self.corrupt)

    def position(self, log: str) -> str:
        with self._writing(EVENTS_DB) as db:  # at the start of a consumer: its tables may have to be made
            return position(db, log)

    def take_in(self, log: str, events: Sequence[Event], *, after: str, to: str) -> bool:
        with self._writing(EVENTS_DB) as db:
            if position(db, log) != after:
                return False
            apply_events(db, events, impression_events(), corrupt=self.corrupt)
            move_position(db, log, to)
        return True

    def add_shown(self, source: str, hours: Mapping[tuple[int, str], int]) -> bool:
        with self._writing(EVENTS_DB) as db:
            return add_shown(db, source, hours)

    def read_item_counts(self, now_us: int) -> ItemCounts:
        try:
            reader = self._connect()
            if "events" not in self._attached:
                return item_counts(now_us, {}, {})
            return read_item_counts(reader, now_us, "events")
        except sqlite3.Error as error:
            raise self._away(error) from error

    def forget_counts(self, now_us: int) -> None:
        with self._writing(EVENTS_DB) as db:
            forget_counts(db, now_us)

    def advance_watermark(self, until_us: int) -> None:
        with self._writing(EVENTS_DB) as db:
            advance_watermark(db, until_us)

    def forget_user(self, user_id: str) -> int:
        gone = 0
        for file, names in ((ONLINE_DB, ("users", "lists")), (EVENTS_DB, ("user_last",))):
            with self._writing(file, erase=True) as db:
                for name in names:
                    gone += db.execute(f"DELETE FROM {name} WHERE user_id = ?", (user_id,)).rowcount  # noqa: S608
        return gone

    def publish_lists(self, snapshot: str, lists: Mapping[str, PrecomputedList]) -> None:
        with self._writing(ONLINE_DB) as db:
            db.execute("DELETE FROM lists")
            db.executemany(
                "INSERT INTO lists VALUES (?, ?)",
                ((user_id, codec.encode_list(made)) for user_id, made in lists.items()),
            )

    def write_item_snapshot(self, snapshot: ItemSnapshot) -> None:
        blob = codec.encode_snapshot(snapshot)
        with self._writing(ONLINE_DB) as db:
            db.execute("INSERT OR REPLACE INTO item_snapshot VALUES (1, ?, ?)", (snapshot.version, blob))

    def read_item_snapshot(self, newer_than: str | None = None) -> ItemSnapshot | None:
        try:
            reader = self._connect()
            if "online" not in self._attached:
                return None
            row = reader.execute(
                "SELECT snapshot FROM online.item_snapshot WHERE version IS NOT ?", (newer_than,)
            ).fetchone()
        except sqlite3.Error as error:
            raise self._away(error) from error
        return codec.decode_snapshot(row[0], self.corrupt) if row else None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
            self._attached = ()

    def _select(self, user_id: str) -> list[tuple[int, Any, Any]]:
        try:
            reader = self._connect()
            return reader.execute(self._statement, (user_id,)).fetchall() if self._statement else []
        except (sqlite3.Error, UnicodeEncodeError) as error:
            if isinstance(error, UnicodeEncodeError):  # a lone surrogate: no stored user has such an id
                return []
            raise self._away(error) from error

    def _connect(self) -> sqlite3.Connection:
        """The reading connection, with those files attached that exist by now."""
        if self._reader is None:
            # One thread at a time uses it; which one is the service's business.
            self._reader = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._reader.execute("PRAGMA busy_timeout = 50")
        if len(self._attached) < 2:
            for name, file in (("online", ONLINE_DB), ("events", EVENTS_DB)):
                path = self._home / file
                if name not in self._attached and path.exists():
                    self._attach(self._reader, name, path)
        return self._reader

    def _attach(self, reader: sqlite3.Connection, name: str, path: Path) -> None:
        reader.execute(f"ATTACH ? AS {name}", (f"{path.resolve().as_uri()}?mode=ro",))
        whole = (
            reader.execute("SELECT 1 FROM online.sqlite_master WHERE name = 'users'").fetchone()
            if name == "online"
            else has_sessions(reader, name)
        )
        if not whole:
            reader.execute(f"DETACH {name}")  # made a moment ago, its tables are yet to come
            return
        self._attached = (*self._attached, name)
        parts = {"online": _FROM_ONLINE, "events": _FROM_EVENTS}
        self._statement = " UNION ALL ".join(parts[a] for a in self._attached)

    @contextmanager
    def _writing(self, file: str, *, erase: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction that takes the write lock at once, on a connection of its own. erase: what is deleted is
        overwritten, and not left in free pages of the file or, unless a reader holds it, in the `-wal` beside it."""
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            make_private(self._home / file)
            db = sqlite3.connect(self._home / file, isolation_level=None, timeout=self._busy_ms / 1000)
        except (OSError, sqlite3.Error) as error:
            raise self._away(error) from error
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # all of this can be computed again; events are the consumer's
            if erase:
                db.execute("PRAGMA secure_delete = ON")
            db.execute("BEGIN IMMEDIATE")
            if file == EVENTS_DB:
                create_streaming_tables(db)
            else:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    db.execute(statement)
            yield db
            db.execute("COMMIT")
            if erase:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise self._away(error) from error
        finally:
            db.close()  # an open transaction is rolled back

    def _away(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"the online store in {self._home} does not answer: {error}",
            next_command="streamrec features materialize --data DIR",
        )
