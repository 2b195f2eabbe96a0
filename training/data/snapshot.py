"""The exact rows that a training used: read-only, named by the SHA-256 of its content, stored once.

    HOME/snapshots/<digest>/            a data-set folder
        interactions.parquet/2011-01.parquet …   one file a month, sorted by (timestamp, user_id, item_id, event, …)
        items.parquet, users.parquet, dataset.toml, snapshot.json
    HOME/snapshots/parts/<digest>.parquet        each of those files once; the folders hold hard links to them

Tomorrow's snapshot of the same log shares every month but the last. Files are read-only; folders are not, so that
deleting HOME works.
"""
# ruff: noqa: S608  SQL is made of our own names

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.dataset import CONFIG, INTERACTIONS, ITEMS, USERS, DatasetConfig
from contracts.errors import DataError, NotFound
from training.data import digest as content
from training.data.contract import Checked, checked
from training.data.engine import BATCH_ROWS, quoted
from training.data.folder import alive

SCHEMA_VERSION = 1
RECORD = "snapshot.json"
SNAPSHOTS = "snapshots"
PARTS = "parts"


@dataclass(frozen=True)
class Snapshot:
    """folder: a data set. digest: 64 hex characters. rows, rejects: by table; rejects are not in the folder.

    files: path in the folder → digest of its content.
    """

    folder: Path
    digest: str
    config: DatasetConfig
    rows: dict[str, int]
    rejects: dict[str, int]
    files: dict[str, str]

    def verify(self) -> None:
        """Read every file and compare its content with its digest, and all of them with the snapshot's.

        Raises:
            DataError: a file is damaged or is not what it was.
        """
        if _whole(self.config, self.files) != self.digest or self.folder.name != self.digest:
            raise DataError(f"{self.folder} is not what it was: its {CONFIG} or {RECORD} has changed")
        for name, sha in self.files.items():
            path = self.folder / name
            try:
                file = pq.ParquetFile(path)
                found = content.ContentHash(file.schema_arrow)
                for block in content.blocks(file.iter_batches(content.BLOCK_ROWS), file.schema_arrow):
                    found.update(block)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path} cannot be read: {error}") from error
            if found.hexdigest() != sha:
                raise DataError(f"{path} is not what it was: its content has another digest than its name")

    @classmethod
    def open(cls, home: Path, digest: str) -> "Snapshot":
        """
        Raises:
            NotFound: no snapshot of that digest.
        """
        return _open(home / SNAPSHOTS / digest)


def take(folder: Path, home: Path, until_us: int | None = None, *, now_us: int | None = None) -> Snapshot:
    """Check `folder` and keep its accepted rows with `timestamp < until_us`. The same content is stored once.

    Raises:
        NotFound, DataError: the folder is no data set, breaks the contract, or has no row before `until_us`.
    """
    store = home.resolve() / SNAPSHOTS
    try:
        return _take(Path(folder), store, until_us, now_us)
    except OSError as error:
        raise DataError(f"the snapshot store {store} cannot be written: {error.strerror or error}") from error


def _take(folder: Path, store: Path, until_us: int | None, now_us: int | None) -> Snapshot:
    parts = store / PARTS
    parts.mkdir(parents=True, exist_ok=True)
    _remove_left_overs(store)
    with checked(folder, now_us=now_us) as check:
        check.report.raise_if_too_many()
        stored: dict[str, tuple[str, int]] = {}  # path inside the snapshot → (digest, rows)
        for name, key in ((ITEMS, "item_id"), (USERS, "user_id")):
            table = name.removesuffix(".parquet")
            if table in check.accepted:
                stored[name] = _keep_table(check, f"{check.accepted[table]} ORDER BY {key}", parts)
        months = _keep_log(check, until_us, parts)
        if not months:
            raise DataError(
                f"{folder} has no interaction before the cut", next_command=f"streamrec data describe {folder}"
            )
        stored |= months
        config = check.config
        rejects = {table: check.report.rejects(table) for table in check.report.rows}
    named = {name: sha for name, (sha, _) in sorted(stored.items())}
    digest = _whole(config, named)
    target = store / digest
    if not target.exists():
        rows = {"interactions": sum(n for name, (_, n) in stored.items() if name.startswith(INTERACTIONS))}
        rows |= {name.removesuffix(".parquet"): stored[name][1] for name in (ITEMS, USERS) if name in stored}
        record = {"schema": SCHEMA_VERSION, "digest": digest, "files": named, "rows": rows, "rejects": rejects}
        _link(store, target, stored, (folder / CONFIG).read_text(), record, parts)
    return _open(target)


def _whole(config: DatasetConfig, files: dict[str, str]) -> str:
    """The digest of a snapshot: of its settings and of its files' content."""
    text = json.dumps({"schema": SCHEMA_VERSION, "config": config.model_dump_json(), "files": files}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _open(folder: Path) -> Snapshot:
    try:
        record = json.loads((folder / RECORD).read_text())
    except OSError as error:
        raise NotFound(f"no snapshot at {folder}", next_command="streamrec train --data DIR") from error
    config = DatasetConfig.read(folder)
    return Snapshot(folder, record["digest"], config, record["rows"], record["rejects"], record["files"])


def _remove_left_overs(store: Path) -> None:
    """What runs that are no more left half-written."""
    for path in (*store.glob(".partial-*"), *(store / PARTS).glob(".partial-*")):
        if not alive(int(path.name.split("-")[1])):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _keep_table(check: Checked, sql: str, parts: Path) -> tuple[str, int]:
    reader = check.connection.sql(sql).to_arrow_reader(BATCH_ROWS)
    part = _Part(parts, reader.schema)
    for block in content.blocks(reader, reader.schema):
        part.write(block)
    return part.keep()


def _keep_log(check: Checked, until_us: int | None, parts: Path) -> dict[str, tuple[str, int]]:
    """One part a calendar month (UTC). Sorting spills to disk; what is held is one block."""
    rows = check.accepted["interactions"]
    names = [d[0] for d in check.connection.sql(f"{rows} LIMIT 0").description]
    first = ["timestamp", "user_id", "item_id", "event"]
    order = ", ".join(quoted(n) for n in first + [n for n in names if n not in first])
    cut = "" if until_us is None else f' WHERE epoch_us("timestamp") < {int(until_us)}'
    reader = check.connection.sql(f"SELECT * FROM ({rows}){cut} ORDER BY {order}").to_arrow_reader(BATCH_ROWS)
    kept: dict[str, tuple[str, int]] = {}
    for month, batches in _by_month(reader):
        part = _Part(parts, reader.schema)
        for block in content.blocks(batches, reader.schema):
            part.write(block)
        kept[f"{INTERACTIONS}/{month}.parquet"] = part.keep()
    return kept


def _by_month(reader: Any) -> Iterator[tuple[str, Iterator[pa.RecordBatch]]]:
    """Cut a stream sorted by time at the edges of months. Each month's stream must be used up before the next."""
    pending: list[pa.RecordBatch] = []

    def pull() -> bool:
        while not pending:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return False
            if len(batch):
                pending.append(batch)
        return True

    def month_of(batch: pa.RecordBatch, row: int) -> str:
        return str(batch.column("timestamp")[row].cast(pa.int64()).cast(pa.timestamp("us")).as_py())[:7]

    def stream(month: str) -> Iterator[pa.RecordBatch]:
        while pull():
            batch = pending.pop()
            if month_of(batch, 0) != month:
                pending.append(batch)
                return
            if month_of(batch, len(batch) - 1) == month:
                yield batch
                continue
            low, high = 0, len(batch) - 1  # row `low` is of this month, row `high` is not
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if month_of(batch, middle) == month else (low, middle)
            pending.append(batch.slice(high))
            yield batch.slice(0, high)
            return

    while pull():
        month = month_of(pending[0], 0)
        yield month, stream(month)


class _Part:
    """A file that gets its name from what was written to it."""

    def __init__(self, parts: Path, schema: pa.Schema) -> None:
        self._parts = parts
        self._partial = parts / f".partial-{os.getpid()}-{os.urandom(4).hex()}"
        self._hash = content.ContentHash(schema)
        self._writer = pq.ParquetWriter(self._partial, schema, compression="zstd")
        self._rows = 0

    def write(self, block: pa.Table) -> None:
        self._hash.update(block)
        self._writer.write_table(block)
        self._rows += len(block)

    def keep(self) -> tuple[str, int]:
        """(digest, rows). Content that is there already is not written again."""
        self._writer.close()
        sha = self._hash.hexdigest()
        target = self._parts / f"{sha}.parquet"
        if target.exists():
            self._partial.unlink()
        else:
            self._partial.chmod(0o444)
            self._partial.replace(target)
        return sha, self._rows


def _link(
    store: Path,
    target: Path,
    stored: dict[str, tuple[str, int]],
    settings: str,
    record: dict[str, Any],
    parts: Path,
) -> None:
    partial = store / f".partial-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        (partial / INTERACTIONS).mkdir(parents=True)
        for name, (sha, _) in stored.items():
            _link_or_copy(parts / f"{sha}.parquet", partial / name)
        (partial / CONFIG).write_text(settings)
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        for name in (CONFIG, RECORD):
            (partial / name).chmod(0o444)
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():  # another process was first: same digest, same content
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _link_or_copy(part: Path, target: Path) -> None:
    """Some file systems have no hard links; there a snapshot costs its size."""
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}:
            raise
        shutil.copy(part, target)  # with its mode: read-only
