"""A log of the service piece by piece, in bounded memory: one rolled file or one open segment at a time.

What cannot be read is named and left out, never silently: whoever judges by the rest says so.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bentos.telemetry.kinds import LogKind
from bentos.telemetry.roll import log_folder, parquet_files, roll
from bentos.telemetry.segments import read_payloads
from contracts.errors import DataError

NEVER_US = 1 << 62
KEPT_FILES = 8  # tables of contexts that stay in memory: about 3,000 requests each


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of the log, or an open segment that has been read. first_us, last_us: of its records."""

    name: str
    first_us: int
    last_us: int
    rows: int
    path: Path | None = None
    table: pa.Table | None = None


@dataclass(slots=True)
class LogFiles:
    """The pieces of one log in [since_us, until_us), wall clock; None: no bound. problems: what was left out."""

    kind: LogKind
    columns: Sequence[str]
    since_us: int | None
    until_us: int | None
    pieces: list[Piece] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _kept: OrderedDict[str, pa.Table] = field(default_factory=OrderedDict)

    @classmethod
    def open(
        cls, home: Path, kind: LogKind, columns: Sequence[str], since_us: int | None, until_us: int | None
    ) -> "LogFiles":
        """Rolls what nobody writes to any more, so that only what is being written has to be held in memory."""
        log = cls(kind, columns, since_us, until_us)
        try:
            rolled = roll(home, (kind,))
        except OSError as error:
            log.problems.append(f"{kind.name}: segments could not be rolled: {error.strerror or error}")
        else:
            if rolled.corrupt:
                log.problems.append(f"{kind.name}: {rolled.corrupt} damaged stretches of segments were left out")
            if rolled.refused:
                log.problems.append(f"{kind.name}: {rolled.refused} segments of a schema that this version cannot read")
        folder = log_folder(home, kind)
        # Segments first: one that is rolled away before it is read has its Parquet files by then.
        read = log._open_segments(folder)
        for path in parquet_files(folder, since_us, until_us):
            if path.stem not in read:
                log._look_at(path)
        return log

    @property
    def _from(self) -> int:
        return -NEVER_US if self.since_us is None else self.since_us

    @property
    def _to(self) -> int:
        return NEVER_US if self.until_us is None else self.until_us

    def _open_segments(self, folder: Path) -> set[str]:
        read = set()
        for segment, frames in read_payloads(folder):
            read.add(segment.name)
            records: list[Any] = []
            bad = frames.corrupt
            for payload in frames.payloads:
                try:
                    record = self.kind.decode(payload)
                except (msgspec.DecodeError, DataError):
                    bad += 1
                    continue
                if self._from <= record.timestamp_us < self._to:
                    records.append(record)
            if bad:
                self.problems.append(f"{self.kind.name}: {bad} records of open segment {segment.name} were left out")
            if records:
                table = self.kind.table(records).select(list(self.columns))
                stamps = [record.timestamp_us for record in records]
                self.pieces.append(Piece(segment.name, min(stamps), max(stamps), len(records), table=table))
        return read

    def _look_at(self, path: Path) -> None:
        """From the file's own statistics: which moments it has."""
        try:
            metadata = pq.read_metadata(path)
            at = metadata.schema.to_arrow_schema().names.index("timestamp_us")
            groups = [metadata.row_group(g).column(at).statistics for g in range(metadata.num_row_groups)]
            first, last = min(g.min for g in groups), max(g.max for g in groups)
        except (OSError, pa.ArrowException, ValueError, AttributeError, TypeError) as error:
            self._skip(path, error)
            return
        if last >= self._from and first < self._to:
            self.pieces.append(Piece(path.stem, first, last, metadata.num_rows, path=path))

    def tables(self) -> Iterator[pa.Table]:
        """Each piece's records of the window, one piece at a time, oldest first."""
        for piece in sorted(self.pieces, key=lambda p: (p.first_us, p.name)):
            table = self._read(piece)
            if table is not None and table.num_rows:
                yield table

    def around(self, first_us: int, last_us: int) -> list[pa.Table]:
        """Records of the pieces that have any in [first_us, last_us]; the last few stay in memory."""
        found = []
        for piece in self.pieces:
            if piece.last_us < first_us or piece.first_us > last_us:
                continue
            table = self._kept.pop(piece.name, None)
            if table is None:
                table = self._read(piece)
            if table is None:
                continue
            self._kept[piece.name] = table
            if len(self._kept) > KEPT_FILES:
                self._kept.popitem(last=False)
            found.append(table)
        return found

    def _read(self, piece: Piece) -> pa.Table | None:
        if piece.table is not None:
            return piece.table
        path = piece.path
        if path is None:
            return None
        try:
            there = set(pq.read_schema(path).names)
            table = pq.ParquetFile(path).read(columns=[name for name in self.columns if name in there])
            for name in self.columns:  # a file of before the column came
                if name not in there:
                    table = table.append_column(name, pa.nulls(table.num_rows, self.kind.arrow.field(name).type))
            table = table.select(list(self.columns)).cast(pa.schema([self.kind.arrow.field(n) for n in self.columns]))
        except (OSError, pa.ArrowException) as error:
            self.pieces.remove(piece)
            self._skip(path, error)
            return None
        stamps = table["timestamp_us"]
        inside = pc.and_(pc.greater_equal(stamps, self._from), pc.less(stamps, self._to))
        return table.filter(inside)

    def _skip(self, path: Path, error: Exception) -> None:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        self.problems.append(
            f"{self.kind.name}: {path.parent.name}/{path.name} cannot be read and was left out: {line}"
        )
