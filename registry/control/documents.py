"""Small documents in the control database: what the watch must know after a restart, and its lease.

A document is JSON with a version: it is read, changed and put in place by compare-and-swap, so that a command and the
watch may both change it. Tables of their own, made when first used, beside those of `sql.py`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import BigInteger, Column, Connection, MetaData, String, Table, Text, insert, select, update

from registry.control.leasing import granted
from registry.control.sql import SqlStore
from registry.control.store import Conflict, Lease

TRIES = 20

meta = MetaData()
documents = Table(
    "watch_documents",
    meta,
    Column("name", String(64), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
)
leases = Table(
    "watch_lease",
    meta,
    Column("name", String(64), primary_key=True),
    Column("holder", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
)


class Documents(Protocol):
    def read(self, name: str) -> tuple[int, dict[str, Any]]:
        """(version, document); (0, {}) where there is none.

        Raises:
            Unreachable: the database does not answer.
        """

    def write(self, name: str, version: int, document: dict[str, Any], lease: Lease | None = None) -> int:
        """Put it in place of `version`; returns the new version.

        Raises:
            Conflict: that is not the version that is there, or `lease` is no longer the current one.
            Unreachable: the database does not answer.
        """

    def acquire(self, holder: str, ttl_s: float, now_us: int) -> Lease | None:
        """Take or renew the lease of the watch; None while another holds it."""

    def release_lease(self, lease: Lease) -> None: ...


def change(
    store: Documents, name: str, step: Callable[[dict[str, Any]], dict[str, Any]], lease: Lease | None = None
) -> dict[str, Any]:
    """Read, change, put in place; again where somebody else was faster. Returns what is there now.

    Raises:
        Conflict: the document moved at each try, or the lease is gone.
    """
    for attempt in range(TRIES):
        version, before = store.read(name)
        after = step(before)
        try:
            store.write(name, version, after, lease)
        except Conflict:
            if attempt == TRIES - 1 or (lease is not None and store.read(name)[0] == version):
                raise
            continue
        return after
    raise AssertionError("not reached")


class SqlDocuments:
    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._made = False

    def read(self, name: str) -> tuple[int, dict[str, Any]]:
        self._make()
        with self._store._reading() as connection:
            row = connection.execute(select(documents).where(documents.c.name == name)).first()
            return (int(row.version), dict(json.loads(row.document))) if row else (0, {})

    def write(self, name: str, version: int, document: dict[str, Any], lease: Lease | None = None) -> int:
        self._make()
        values = {"version": version + 1, "document": json.dumps(document, allow_nan=False)}
        with self._store._writing() as connection:
            if lease is not None:
                _demand(_lease(connection), lease)
            found = connection.execute(select(documents.c.version).where(documents.c.name == name)).scalar()
            if (found or 0) != version:
                raise Conflict(f"{name} has moved from version {version} to {found}")
            if found is None:
                connection.execute(insert(documents).values(name=name, **values))
            else:
                connection.execute(update(documents).where(documents.c.name == name).values(**values))
        return version + 1

    def acquire(self, holder: str, ttl_s: float, now_us: int) -> Lease | None:
        self._make()
        with self._store._writing() as connection:
            held = _lease(connection)
            mine, stored = granted(held, holder, ttl_s, now_us)
            _put(connection, stored, new=held is None)
        return mine

    def release_lease(self, lease: Lease) -> None:
        self._make()
        with self._store._writing() as connection:
            held = _lease(connection)
            if held and (held.holder, held.epoch) == (lease.holder, lease.epoch):
                _put(connection, Lease(held.holder, held.epoch, 0), new=False)

    def _make(self) -> None:
        if not self._made:
            with self._store._writing() as connection:
                meta.create_all(connection)
            self._made = True


@dataclass
class MemoryDocuments:
    """The fake: one process, nothing kept."""

    held: Lease | None = None
    kept: dict[str, tuple[int, str]] = field(default_factory=dict)

    def read(self, name: str) -> tuple[int, dict[str, Any]]:
        version, document = self.kept.get(name, (0, "{}"))
        return version, dict(json.loads(document))

    def write(self, name: str, version: int, document: dict[str, Any], lease: Lease | None = None) -> int:
        if lease is not None:
            _demand(self.held, lease)
        if self.read(name)[0] != version:
            raise Conflict(f"{name} has moved from version {version}")
        self.kept[name] = version + 1, json.dumps(document, allow_nan=False)
        return version + 1

    def acquire(self, holder: str, ttl_s: float, now_us: int) -> Lease | None:
        mine, self.held = granted(self.held, holder, ttl_s, now_us)
        return mine

    def release_lease(self, lease: Lease) -> None:
        if self.held and (self.held.holder, self.held.epoch) == (lease.holder, lease.epoch):
            self.held = Lease(lease.holder, lease.epoch, 0)


def _demand(held: Lease | None, lease: Lease) -> None:
    if held is None or (held.holder, held.epoch) != (lease.holder, lease.epoch):
        raise Conflict("the lease has gone to another watch")


def _lease(connection: Connection) -> Lease | None:
    row = connection.execute(select(leases).where(leases.c.name == "watch")).first()
    return Lease(row.holder, int(row.epoch), int(row.until_us)) if row else None


def _put(connection: Connection, lease: Lease, *, new: bool) -> None:
    values = {"holder": lease.holder, "epoch": lease.epoch, "until_us": lease.until_us}
    if new:
        connection.execute(insert(leases).values(name="watch", **values))
    else:
        connection.execute(update(leases).where(leases.c.name == "watch").values(**values))
