"""The control database with SQLAlchemy, on SQLite or PostgreSQL.

Every write is one transaction that first takes the write lock (`BEGIN IMMEDIATE` on SQLite, a lock on the head of the
audit on PostgreSQL): SQLAlchemy's default on SQLite loses updates. Nothing is pooled on SQLite, so that a file which
was away, or was put back from a copy, is simply opened again. SQLite keeps its rollback journal rather than a WAL: a
few commits a minute need no more, and the database is one file that can be copied and put back.

A database that is lost is never begun anew in silence: an empty one has no champion, and no token either.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from contracts.errors import Refused, Unreachable
from contracts.routing import ROUTING
from contracts.settings import Settings
from registry.control import audit
from registry.control.leasing import granted
from registry.control.store import Actor, Conflict, Entry, Lease, TokenRecord
from registry.control.tokens import demand_an_admin
from registry.releases.values import ControlState, Release

SCHEMA = 1
BUSY_S = 10.0
SQLITE = "sqlite:///"
POSTGRES_LOCK = 7_235_711  # of the making of the schema; any number that nobody else takes

# Of a damaged file, too: SQLite's word on it may be no text, and a number in it no number.
FAULTS = (SQLAlchemyError, sqlite3.Error, OSError, ValueError, TypeError, OverflowError)
BACK = "streamrec release rollback --break-glass   (works without it)"

meta = MetaData()
about = Table("about", meta, Column("id", Integer, primary_key=True), Column("schema", Integer, nullable=False))
states = Table(
    "state",
    meta,
    Column("id", Integer, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
)
releases = Table(
    "releases",
    meta,
    Column("id", String(64), primary_key=True),
    Column("created_us", BigInteger, nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("document", Text, nullable=False),
)
entries = Table(
    "audit",
    meta,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", Text, nullable=False, index=True),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
)
# The last entry's number and digest: an end of the chain that was cut off is found.
heads = Table(
    "head",
    meta,
    Column("id", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
)
leases = Table(
    "lease",
    meta,
    Column("id", Integer, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
)
tokens = Table(
    "tokens",
    meta,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("revoked_us", BigInteger, nullable=True),
)


def control_store(settings: Settings) -> "SqlStore":
    """The store of this home, or the one that `control_db` names. Opens nothing yet."""
    return SqlStore(settings.control_uri)


def exists(settings: Settings) -> bool:
    """Whether there is a database to ask; asking does not make one."""
    uri = settings.control_uri
    return not uri.startswith(SQLITE) or Path(uri.removeprefix(SQLITE)).exists()


class SqlStore:
    """
    Args:
        uri: a URL of SQLAlchemy. The folder of a SQLite file is made (0700), the file is the owner's alone (0600).
    """

    def __init__(self, uri: str) -> None:
        self._path = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
        self._engine = _engine(uri, self._path is not None)
        self._checked: tuple[int, int] | None = None  # the file whose schema has been looked at

    def load(self) -> ControlState:
        with self._reading() as connection:
            row = connection.execute(select(states.c.version, states.c.document)).first()
            if row is None:
                raise Unreachable("the control database has lost its state", next_command=BACK)
            return _state(row.version, row.document)

    def commit(
        self,
        before: ControlState,
        after: ControlState,
        *,
        actor: Actor,
        action: str,
        subject: str,
        detail: dict[str, Any],
        now_us: int,
        lease: Lease | None = None,
    ) -> ControlState:
        done = after.model_copy(update={"version": before.version + 1})
        document = _document(done)
        left = {"version": done.version, "state_sha256": _sha256(document)}
        with self._writing() as connection:
            if lease is not None:
                held = _lease(connection)
                if held is None or (held.holder, held.epoch) != (lease.holder, lease.epoch):
                    raise Conflict("the lease has gone to another controller")
            moved = connection.execute(
                update(states)
                .where(states.c.id == 1, states.c.version == before.version)
                .values(version=done.version, document=document)
            )
            if not moved.rowcount:
                found = connection.execute(select(states.c.version)).scalar()
                raise Conflict(f"the state has moved from version {before.version} to {found}")
            for release in (after.ended, after.release):
                if release is not None:
                    _put_release(connection, release)
            _note(connection, actor, action, subject, {**detail, **left}, now_us)
        return done

    def releases(self, limit: int = 100) -> list[Release]:
        query = select(releases.c.document).order_by(releases.c.created_us.desc(), releases.c.id.desc()).limit(limit)
        with self._reading() as connection:
            documents = connection.execute(query).scalars().all()
            try:
                return [Release.model_validate_json(document) for document in documents]
            except ValidationError as error:
                raise _unreadable("a release", error) from error

    def acquire(self, holder: str, ttl_s: float, now_us: int) -> Lease | None:
        with self._writing() as connection:
            held = _lease(connection)
            mine, stored = granted(held, holder, ttl_s, now_us)
            _put_lease(connection, stored, new=held is None)
        return mine

    def release_lease(self, lease: Lease) -> None:
        with self._writing() as connection:
            held = _lease(connection)
            if held and (held.holder, held.epoch) == (lease.holder, lease.epoch):
                _put_lease(connection, Lease(held.holder, held.epoch, 0), new=False)

    def note(self, actor: Actor, action: str, subject: str, detail: dict[str, Any], now_us: int) -> Entry:
        with self._writing() as connection:
            return _note(connection, actor, action, subject, detail, now_us)

    def history(self, subject: str | None = None, limit: int = 1000) -> list[Entry]:
        query = select(entries).order_by(entries.c.number.desc()).limit(limit)
        if subject is not None:
            query = query.where(entries.c.subject == subject)
        with self._reading() as connection:
            rows = connection.execute(query).all()
            return [_entry(row) for row in reversed(rows)]

    def verify(self) -> Sequence[str]:
        with self._reading() as connection:
            rows = connection.execute(select(entries).order_by(entries.c.number)).all()
            head = connection.execute(select(heads.c.number, heads.c.digest)).first()
            state = connection.execute(select(states.c.version, states.c.document)).first()
            found = audit.problems(
                ((_as_stored(row), str(row.detail)) for row in rows),
                (int(head.number), str(head.digest)) if head else (0, audit.GENESIS),
            )
            return found + _state_problems(rows, state)

    def tokens(self) -> list[TokenRecord]:
        with self._reading() as connection:
            return _tokens(connection)

    def save_token(self, record: TokenRecord, actor: Actor, now_us: int) -> None:
        values = {name: getattr(record, name) for name in TokenRecord.__slots__}
        with self._writing() as connection:
            held = _tokens(connection)
            demand_an_admin(held, record)
            if any(t.name == record.name for t in held):
                connection.execute(update(tokens).where(tokens.c.name == record.name).values(**values))
            else:
                connection.execute(insert(tokens).values(**values))
            action = "token.revoke" if record.revoked_us is not None else "token.create"
            _note(connection, actor, action, record.name, {"role": record.role}, now_us)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._translated():
            self._prepare()
            with self._engine.connect() as connection:
                yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """One transaction with the write lock held from its first statement on."""
        with self._translated():
            self._prepare()
            with self._engine.connect().execution_options(streamrec_writes=True) as connection, connection.begin():
                connection.execute(select(heads.c.number).where(heads.c.id == 1).with_for_update())
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FAULTS as error:
            where = self._path or self._engine.url.render_as_string(hide_password=True)
            cause = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise Unreachable(
                f"the control database {where} does not answer: {cause}",
                next_command=BACK,
            ) from error

    def _prepare(self) -> None:
        """Make the schema on the first use, and look whose it is whenever the file is another one."""
        key = self._file_key()
        if key is not None and key == self._checked:
            return
        if self._path is not None:
            if key is None:
                self._demand_a_first_use()
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        with self._engine.connect().execution_options(streamrec_writes=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": POSTGRES_LOCK})
            if not inspect(connection).has_table(about.name):
                self._demand_a_first_use()
                meta.create_all(connection)
                connection.execute(insert(about).values(id=1, schema=SCHEMA))
                connection.execute(insert(heads).values(id=1, number=0, digest=audit.GENESIS))
                connection.execute(insert(states).values(id=1, version=0, document=_document(ControlState())))
            found = connection.execute(select(about.c.schema)).scalar()
            if found != SCHEMA:
                raise Refused(f"the control database has schema {found}, this version of streamrec reads {SCHEMA}")
        self._checked = self._file_key()

    def _demand_a_first_use(self) -> None:
        """A database is made where none was used: not when this process has used one, and not when a routing table,
        which is written from one, lies beside the file."""
        if self._path is None:
            return
        table = self._path.parent / ROUTING
        if self._checked is not None or table.exists():
            raise Unreachable(
                f"the control database {self._path} is gone or empty, though it was in use: put it back from a copy; "
                f"or, to begin anew without champion and history, remove {table} and start again",
                next_command=BACK,
            )

    def _file_key(self) -> tuple[int, int] | None:
        if self._path is None:
            return (0, 0)
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def _engine(uri: str, sqlite: bool) -> Engine:
    if not sqlite:
        return create_engine(uri, pool_pre_ping=True, isolation_level="READ COMMITTED")
    engine = create_engine(uri, poolclass=NullPool, connect_args={"timeout": BUSY_S})

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("streamrec_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _state(version: int, document: str) -> ControlState:
    try:
        return ControlState.model_validate_json(document).model_copy(update={"version": int(version)})
    except ValidationError as error:
        raise _unreadable("its state", error) from error


def _document(state: ControlState) -> str:
    """As it is stored.

    Raises:
        Refused: it could not be read again (a number without end where one is needed, half a character).
    """
    try:
        document = state.model_dump_json()
        ControlState.model_validate_json(document)
    except (ValidationError, PydanticSerializationError) as error:
        cause = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        raise Refused(
            f"the new state could not be stored: `{'.'.join(map(str, cause['loc']))}`: {cause['msg']}"
        ) from error
    return document


def _sha256(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()


def _state_problems(rows: Sequence[Any], state: Any) -> list[str]:
    """Is the state the one that the last transition left?"""
    for row in reversed(rows):
        try:
            left = json.loads(row.detail)
        except (ValueError, TypeError):
            continue  # told already: its digest is another
        if isinstance(left, dict) and "state_sha256" in left:
            if state is None or (left.get("version"), left["state_sha256"]) != (
                state.version,
                _sha256(str(state.document)),
            ):
                return [f"the state is not the one that entry {row.number} left: it was changed outside the commands"]
            return []
    return [] if state is not None and state.version == 0 else ["there is a state, but no entry that left it"]


def _unreadable(what: str, error: ValidationError) -> Unreachable:
    first = error.errors()[0]
    return Unreachable(
        f"the control database holds {what} in a form that this version does not read: "
        f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}"
    )


def _put_release(connection: Connection, release: Release) -> None:
    values = {"created_us": release.created_us, "state": release.state, "document": release.model_dump_json()}
    done = connection.execute(update(releases).where(releases.c.id == release.id).values(**values))
    if not done.rowcount:
        connection.execute(insert(releases).values(id=release.id, **values))


def _lease(connection: Connection) -> Lease | None:
    row = connection.execute(select(leases)).first()
    return Lease(row.holder, int(row.epoch), int(row.until_us)) if row else None


def _put_lease(connection: Connection, lease: Lease, *, new: bool) -> None:
    values = {"holder": lease.holder, "epoch": lease.epoch, "until_us": lease.until_us}
    if new:
        connection.execute(insert(leases).values(id=1, **values))
    else:
        connection.execute(update(leases).values(**values))


def _note(
    connection: Connection, actor: Actor, action: str, subject: str, detail: dict[str, Any], now_us: int
) -> Entry:
    head = connection.execute(select(heads.c.number, heads.c.digest)).one()
    entry, stored = audit.entry(actor, action, subject, detail, now_us, (int(head.number), str(head.digest)))
    values = {name: getattr(entry, name) for name in Entry.__slots__} | {"detail": stored}
    connection.execute(insert(entries).values(**values))
    connection.execute(update(heads).values(number=entry.number, digest=entry.digest))
    return entry


def _tokens(connection: Connection) -> list[TokenRecord]:
    rows = connection.execute(select(tokens).order_by(tokens.c.created_us, tokens.c.name)).all()
    return [TokenRecord(r.name, r.role, r.sha256, r.created_us, r.created_by, r.revoked_us) for r in rows]


def _as_stored(row: Any) -> Entry:
    """For the check alone: columns as they are, so that one which makes no sense is told and does not stop it."""
    return Entry(
        row.number, row.at_us, str(row.actor), str(row.action), str(row.subject), {}, str(row.previous), str(row.digest)
    )


def _entry(row: Any) -> Entry:
    try:
        return Entry(
            int(row.number), int(row.at_us), row.actor, row.action, row.subject, json.loads(row.detail), row.previous,
            row.digest,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise Unreachable(
            f"audit entry {row.number} cannot be read: it has been changed",
            next_command="streamrec release history --verify",
        ) from error
