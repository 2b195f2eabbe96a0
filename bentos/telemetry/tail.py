"""Logs followed from a moment on: each read gives what has come since the last one, each record once.

A reader may stop and start again at any time, by reading from its beginning. Segments are read as they grow; one that
is rolled to Parquet meanwhile is finished there.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bentos.telemetry.event_log import EVENTS_ARROW, table_of
from bentos.telemetry.event_logs import EventLog, is_redis
from bentos.telemetry.kinds import LogKind
from bentos.telemetry.roll import day_of, log_folder, parquet_files
from bentos.telemetry.segments import Segment, parse, segments
from contracts.errors import DataError, Unreachable
from contracts.events import Event
from features.online.streaming import EVENTS_DB

_DAY_US = 86_400_000_000
_CHUNK_BYTES = 16 << 20


class Tail:
    """
    Args:
        since_us: records with a lesser timestamp are left out.
        columns: of `kind.arrow`; all when unset. Fewer are faster: the rest is never made a column.
    """

    def __init__(self, home: Path, kind: LogKind, since_us: int, columns: Sequence[str] | None = None) -> None:
        self._folder = log_folder(home, kind)
        self._kind = kind
        self._since_us = since_us
        self._schema = pa.schema([kind.arrow.field(name) for name in columns or kind.arrow.names])
        self._end: dict[str, int] = {}  # segment → bytes read
        self._seen: dict[str, Counter[int]] = {}  # segment → records read of each day
        self._done: set[str] = set()  # segments that are read and will not grow
        self._files: set[str] = set()  # Parquet files that are done with
        self.corrupt = 0  # damaged stretches met so far

    def read(self, limit: int = 100_000) -> pa.Table:
        """What is new; about `limit` records at most, where there are more. Empty: all is read.

        Raises:
            DataError: a record of a schema that this code does not know, or a file that is damaged.
            OSError: the disk does not answer.
        """
        tables: list[pa.Table] = []
        rows = 0
        found = segments(self._folder)  # first: one that is rolled away before it is read has its Parquet by then
        here = {segment.name for segment in found}
        for segment in found:
            while rows < limit and segment.name not in self._done:
                table = self._of_segment(segment)
                if table is None:
                    if segment.final:
                        self._done.add(segment.name)
                    break
                tables.append(table)
                rows += len(table)
        for path in parquet_files(self._folder, self._since_us):
            if rows < limit and path.stem not in here and (table := self._of_file(path)) is not None:
                tables.append(table)
                rows += len(table)
        return pa.concat_tables(tables) if tables else self._schema.empty_table()

    def _of_segment(self, segment: Segment) -> pa.Table | None:
        """The next piece; None: nothing new."""
        start = self._end.get(segment.name, 0)
        try:
            with segment.path.open("rb") as file:
                file.seek(start)
                data = file.read(_CHUNK_BYTES)
        except FileNotFoundError:  # rolled: the rest is in its Parquet files
            return None
        frames = parse(data)
        if not frames.end:
            if len(data) < _CHUNK_BYTES:
                return None  # nothing, or the beginning of a frame
            frames = parse(segment.path.read_bytes()[start:])  # a frame, or damage, that is longer than a chunk
            if not frames.end:
                return None
        self._end[segment.name] = start + frames.end
        # What follows the last whole frame is met again: only what lies between whole ones is surely damage.
        self.corrupt += max(0, frames.corrupt - (frames.end < len(data) and not frames.torn))
        records = []
        for payload in frames.payloads:
            try:
                records.append(self._kind.decode(payload))
            except msgspec.DecodeError:
                self.corrupt += 1
        days = np.fromiter((r.timestamp_us for r in records), np.int64, len(records)) // _DAY_US
        self._seen.setdefault(segment.name, Counter()).update(days.tolist())
        return self._table([r for r in records if r.timestamp_us >= self._since_us])

    def _of_file(self, path: Path) -> pa.Table | None:
        """What a rolled segment has beyond that which was read of it; None: nothing."""
        key = f"{path.parent.name}/{path.name}"
        if key in self._files:
            return None
        try:
            table = pq.read_table(path, schema=self._kind.arrow, partitioning=None)
        except FileNotFoundError:
            return None  # removed by its owner
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{path} is no Parquet file: {error}", next_command="put it back from a copy, or move it away"
            ) from error
        self._files.add(key)
        if not len(table):
            return None
        day = int(table["timestamp_us"][0].as_py()) // _DAY_US
        table = table.slice(self._seen.get(path.stem, Counter())[day]).select(self._schema.names)
        if path.parent.name <= f"date={day_of(self._since_us)}":
            table = table.filter(pc.greater_equal(table["timestamp_us"], self._since_us))
        return table if len(table) else None

    def _table(self, records: Sequence[Any]) -> pa.Table:
        return pa.Table.from_arrays([_column(records, field) for field in self._schema], schema=self._schema)


def _column(records: Sequence[Any], field: pa.Field) -> pa.Array:
    values: list[Any] = [getattr(r, field.name) for r in records]
    if pa.types.is_map(field.type):
        values = [list(v.items()) for v in values]
    elif pa.types.is_struct(field.type):
        values = [msgspec.structs.asdict(v) if v is not None else None for v in values]
    return pa.array(values, field.type)


_STREAM_PIECE = 10_000


class EventTail:
    """Events in the order in which they were accepted, from `since_us` on. event_log: as in the settings."""

    def __init__(self, home: Path, since_us: int, *, event_log: str = "sqlite") -> None:
        self._stream: EventLog | None = None
        if is_redis(event_log):
            from bentos.telemetry.event_stream import RedisEventLog, position_before

            self._stream = RedisEventLog(event_log)
            self._position = position_before(since_us)
        self._path = home / EVENTS_DB
        self._since_us = since_us
        self._seq = 0
        self._file: tuple[int, int] | None = None

    def read(self, limit: int = 100_000) -> pa.Table:
        """
        Raises:
            Unreachable: the file is no event store, or Redis is away.
        """
        if self._stream:
            return table_of(self._of_stream(self._stream, limit))
        if not self._path.exists():
            return EVENTS_ARROW.empty_table()
        names = EVENTS_ARROW.names
        try:
            found = self._path.stat()
            if self._file not in (None, (found.st_dev, found.st_ino)):
                self._seq = 0  # removed and made anew
            self._file = (found.st_dev, found.st_ino)
            with closing(sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True)) as db:
                (last,) = db.execute("SELECT max(seq) FROM events").fetchone()
                rows = db.execute(
                    f"SELECT seq, {', '.join(names)} FROM events "  # noqa: S608
                    "WHERE seq > ? AND seq <= ? AND timestamp_us >= ? ORDER BY seq LIMIT ?",
                    (self._seq, last, self._since_us, limit),
                ).fetchall()
        except (OSError, sqlite3.Error) as error:
            if "no such table" in str(error):  # a store that has just been made
                return EVENTS_ARROW.empty_table()
            raise Unreachable(f"event store {self._path}: {error}") from error
        # Events from before `since_us` are looked at once, not at every call.
        self._seq = rows[-1][0] if len(rows) == limit else last or 0
        if not rows:
            return EVENTS_ARROW.empty_table()
        columns = dict(zip(("seq", *names), map(list, zip(*rows, strict=True)), strict=True))
        columns["context"] = [list(json.loads(c).items()) for c in columns["context"]]
        return pa.Table.from_pydict({name: columns[name] for name in names}, schema=EVENTS_ARROW)

    def _of_stream(self, stream: EventLog, limit: int) -> list[Event]:
        kept: list[Event] = []
        while len(kept) < limit:
            events, to = stream.after(self._position, min(limit - len(kept), _STREAM_PIECE))
            if to == self._position:
                break
            self._position = to
            kept += [e for e in events if e.timestamp_us >= self._since_us]
        return kept
