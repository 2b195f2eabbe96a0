"""The live catalogue on this machine: `catalogue.db`, written by the consumer, read by every Bento and gateway.

Of each item its newest state is kept, with the version of the catalogue at which it came about: a reader asks for what
is newer than what it has. The last `PAST_STATES` that were replaced are kept too, so that the catalogue of an answer
can be had again; older ones go, and the file does not grow with the number of changes.
"""

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bentos.catalogue.shared import Position
from contracts.errors import Refused, Unreachable
from contracts.live_items import ItemChange, ItemState, after
from features.online.streaming import make_private

CATALOGUE_DB = "catalogue.db"
PAST_STATES = 200_000  # about 40 MB
_TABLES = (
    "CREATE TABLE IF NOT EXISTS items"
    " (item_id TEXT PRIMARY KEY, version INTEGER NOT NULL, ordinal INTEGER NOT NULL, state BLOB NOT NULL)"
    " WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS items_by_version ON items (version)",
    # identity: of this file, so that a reader knows when it was replaced by another. version: of the newest state.
    # ordinals: given so far.
    "CREATE TABLE IF NOT EXISTS catalogue"
    " (one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL, version INTEGER NOT NULL,"
    " ordinals INTEGER NOT NULL)",
    # States that were replaced: true from `version` until before `until`. The number orders them by that.
    "CREATE TABLE IF NOT EXISTS past"
    " (number INTEGER PRIMARY KEY, version INTEGER NOT NULL, until INTEGER NOT NULL, state BLOB NOT NULL)",
    # The first version that can be had again.
    "CREATE TABLE IF NOT EXISTS horizon (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL)",
    # How far the catalogue that several machines share was taken in.
    "CREATE TABLE IF NOT EXISTS shared"
    " (one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL, version INTEGER NOT NULL)",
)
_WRITE = (
    "INSERT INTO items VALUES (?, ?, ?, ?) ON CONFLICT (item_id)"
    " DO UPDATE SET version = excluded.version, ordinal = excluded.ordinal, state = excluded.state"
)
_REPLACE = "INSERT INTO past (version, until, state) SELECT version, ?, state FROM items WHERE item_id = ?"
_decode = msgspec.msgpack.Decoder(ItemState).decode
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Applied:
    """version: after it. changed: ids whose state is another now, in the order of the changes."""

    version: int
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class News:
    """identity: of the file, "" while there is none. states: newer than what was asked from, oldest first."""

    identity: str
    version: int
    states: tuple[ItemState, ...]


class CatalogueStore:
    """The only writer. Not thread-safe: one thread at a time.

    Args:
        max_items: items that may be put; flags and removals are never refused.

    Raises:
        Unreachable: the file cannot be opened or is no database.
    """

    def __init__(self, home: Path, *, max_items: int = 100_000) -> None:
        self.path = home / CATALOGUE_DB
        self._max_items = max_items
        try:
            make_private(self.path)
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA busy_timeout = 5000")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            for statement in _TABLES:
                self._db.execute(statement)
            self._db.execute("INSERT OR IGNORE INTO catalogue VALUES (1, ?, 0, 0)", (secrets.token_hex(8),))
            # A file of before past states were kept begins with what it has now.
            self._db.execute("INSERT OR IGNORE INTO horizon SELECT 1, version FROM catalogue")
        except (OSError, sqlite3.Error) as error:
            raise self._away(error) from error

    def apply(self, changes: Sequence[ItemChange]) -> Applied:
        """All of them in one transaction, in order. Durable on return; what changes nothing writes nothing.

        Raises:
            Refused: more items than may be put; nothing was changed.
            Unreachable: the disk is full or the file cannot be written.
        """
        with self._transaction() as db:
            version, ordinal = self._counters()
            states: dict[str, ItemState] = {}
            changed: dict[str, None] = {}
            given = ordinal
            for change in changes:
                old = states.get(change.item_id) or self._state(change.item_id)
                new = after(old, change)
                if new == old:
                    continue
                if new.facts is not None and not new.ordinal:
                    ordinal += 1
                    new = msgspec.structs.replace(new, ordinal=ordinal)
                states[change.item_id] = new
                changed[change.item_id] = None
            if ordinal > max(given, self._max_items):
                raise Refused(
                    f"{given} items were put and {self._max_items} may be: build a Bento that knows them",
                    next_command="streamrec train --data DIR && streamrec build",
                )
            version = self._write(db, states, version, ordinal)
        return Applied(version, tuple(changed))

    def take(self, states: Sequence[ItemState], position: Position) -> None:
        """States of the shared catalogue, which stand at `position` in it. Never refused: others have taken them.

        Raises:
            Unreachable: as `apply`.
        """
        with self._transaction() as db:
            version, ordinal = self._counters()
            new: dict[str, ItemState] = {}
            for state in states:
                old = self._state(state.item_id)
                number = old.ordinal if old else 0
                if state.facts is not None and not number:
                    ordinal += 1
                    number = ordinal
                mine = msgspec.structs.replace(state, ordinal=number)
                if mine != old:
                    new[state.item_id] = mine
            self._write(db, new, version, ordinal)
            db.execute("INSERT OR REPLACE INTO shared VALUES (1, ?, ?)", position)

    def position(self) -> Position:
        """How far `take` has come."""
        with self._reading() as db:
            return Position(*(db.execute("SELECT identity, version FROM shared").fetchone() or ()))

    def states(self) -> list[ItemState]:
        """All of them."""
        with self._reading() as db:
            return [_decode(row[0]) for row in db.execute("SELECT state FROM items")]

    def close(self) -> None:
        self._db.close()

    def _write(self, db: sqlite3.Connection, states: Mapping[str, ItemState], version: int, ordinal: int) -> int:
        """The version after it."""
        if states:
            version += 1
            db.executemany(_REPLACE, [(version, i) for i in states])
            self._forget(db)
            db.executemany(_WRITE, [(i, version, s.ordinal, _encode(s)) for i, s in states.items()])
            db.execute("UPDATE catalogue SET version = ?, ordinals = ?", (version, ordinal))
        return version

    def _forget(self, db: sqlite3.Connection) -> None:
        """The oldest of the past states, where there are too many."""
        (last,) = db.execute("SELECT coalesce(max(number), 0) FROM past").fetchone()
        (first,) = db.execute("SELECT coalesce(min(number), 0) FROM past").fetchone()
        if last - first >= PAST_STATES:
            gone = (last - PAST_STATES,)
            db.execute("UPDATE horizon SET version = (SELECT max(until) FROM past WHERE number <= ?)", gone)
            db.execute("DELETE FROM past WHERE number <= ?", gone)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise self._away(error) from error

    def _counters(self) -> tuple[int, int]:
        version, ordinals = self._db.execute("SELECT version, ordinals FROM catalogue").fetchone()
        return version, ordinals

    def _state(self, item_id: str) -> ItemState | None:
        row = self._db.execute("SELECT state FROM items WHERE item_id = ?", (item_id,)).fetchone()
        return _decode(row[0]) if row else None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except (sqlite3.Error, ValueError, TypeError) as error:
            self._roll_back()
            raise self._away(error) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        """Never raises: SQLite rolls back by itself what a full disk interrupts."""
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _away(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"live catalogue {self.path}: {error}", next_command="free disk space or check the folder's permissions"
        )


class CatalogueReader:
    """Reads beside the writer, read-only. One thread at a time."""

    def __init__(self, home: Path) -> None:
        self.path = home / CATALOGUE_DB
        self._db: sqlite3.Connection | None = None
        self._inode = 0

    def news(self, identity: str = "", version: int = 0) -> News:
        """What is newer than `version` of the file `identity`; everything of another file. About 10 µs for nothing.

        Raises:
            Unreachable: there is a file, and it cannot be read.
        """
        try:
            db = self._connection()
            if db is None:
                return News("", 0, ())
            db.execute("BEGIN")
            try:
                found = db.execute("SELECT identity, version FROM catalogue").fetchone()
                if found is None:
                    return News("", 0, ())
                if found == (identity, version):
                    return News(identity, version, ())
                since = version if found[0] == identity else 0
                rows = db.execute("SELECT state FROM items WHERE version > ? ORDER BY version, ordinal", (since,))
                return News(found[0], found[1], tuple(_decode(row[0]) for row in rows))
            finally:
                db.execute("COMMIT")
        except (OSError, sqlite3.Error, ValueError, TypeError) as error:  # a hand in the file leaves anything
            self.close()
            if "no such table" in str(error):  # made a moment ago, its tables are yet to come
                return News("", 0, ())
            raise Unreachable(
                f"live catalogue {self.path}: {error}", next_command="docs/runbooks/item-must-go.md"
            ) from error

    def at(self, identity: str, version: int) -> dict[str, ItemState] | None:
        """All states as of that version of that file, by item; None: they cannot be had any more.

        Raises:
            Unreachable: as `news`.
        """
        try:
            db = self._connection()
            if db is None:
                return None
            found = db.execute("SELECT identity, version FROM catalogue").fetchone()
            horizon = db.execute("SELECT version FROM horizon").fetchone()
            if found is None or horizon is None or found[0] != identity or not horizon[0] <= version <= found[1]:
                return None
            rows = db.execute(
                "SELECT state FROM items WHERE version <= ?1"
                " UNION ALL SELECT state FROM past WHERE version <= ?1 AND until > ?1",
                (version,),
            )
            states = [_decode(row[0]) for row in rows]
        except (OSError, sqlite3.Error, ValueError, TypeError) as error:
            self.close()
            if "no such table" in str(error):  # of a version that kept nothing
                return None
            raise Unreachable(
                f"live catalogue {self.path}: {error}", next_command="docs/runbooks/item-must-go.md"
            ) from error
        return {state.item_id: state for state in states}

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _connection(self) -> sqlite3.Connection | None:
        """None: there is no file. A file in the place of the one that was open is opened anew."""
        try:
            inode = self.path.stat().st_ino
        except FileNotFoundError:
            self.close()
            return None
        if self._db is None or inode != self._inode:
            self.close()
            self._db = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA busy_timeout = 50")
            self._inode = inode
        return self._db
