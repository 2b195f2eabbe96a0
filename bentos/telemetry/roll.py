"""Segments to Parquet, and one reader over both. Any process may do it, at any time, and die in the middle.

    python -m bentos.telemetry.roll --home .streamrec
    log/exposures/date=2026-11-22/<segment>.parquet

The Parquet files are named after their segment and put in place before it is removed. So a second try writes the same
files again, and a reader that has read a segment leaves its Parquet files out: no record is lost or counted twice.
"""

import argparse
import fcntl
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from bentos.telemetry.erasure import Erasures, pending
from bentos.telemetry.kinds import EXPOSURES, KINDS, LogKind
from bentos.telemetry.segments import Segment, parse, remove_if_empty, segments
from bentos.telemetry.shown import write_shown
from contracts.errors import DataError

_DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1).toordinal()
_ROLL_LOCK = ".roll.lock"
# Segments with damage are kept here after their good records have been rolled.
CORRUPT = ".corrupt"


@dataclass(frozen=True, slots=True)
class Rolled:
    """segments: turned into Parquet; records: in them; corrupt: damaged stretches skipped; torn: segments whose
    process was killed inside a record; refused: segments left alone because of a schema this code does not know."""

    segments: int = 0
    records: int = 0
    corrupt: int = 0
    torn: int = 0
    refused: int = 0

    def __add__(self, other: "Rolled") -> "Rolled":
        mine, theirs = ((r.segments, r.records, r.corrupt, r.torn, r.refused) for r in (self, other))
        return Rolled(*(a + b for a, b in zip(mine, theirs, strict=True)))


def log_folder(home: Path, kind: LogKind) -> Path:
    return home / "log" / kind.name


def roll(home: Path, kinds: Iterable[LogKind] = KINDS) -> Rolled:
    """Roll every final segment of both logs. Does nothing where another process is already rolling."""
    total = Rolled()
    for kind in kinds:
        folder = log_folder(home, kind)
        if not folder.exists():
            continue
        with roll_lock(folder) as ours:
            if not ours:
                continue
            forgotten = pending(home)
            for segment in segments(folder):
                if segment.final:
                    total += _roll_one(folder, kind, segment, forgotten)
            for directory in [d for d in folder.iterdir() if d.is_dir() and "=" not in d.name and d.name[0] != "."]:
                remove_if_empty(directory)
    return total


@contextmanager
def roll_lock(folder: Path) -> Iterator[bool]:
    descriptor = os.open(folder / _ROLL_LOCK, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _roll_one(folder: Path, kind: LogKind, segment: Segment, forgotten: Erasures) -> Rolled:
    frames = parse(segment.path.read_bytes())
    try:
        records, undecodable = _decode(kind, frames.payloads)
    except DataError:
        return Rolled(refused=1)
    if forgotten.pending:
        records = [record for record in records if not forgotten.drop(record)]
    if records:
        table = kind.table(records)
        days = np.asarray(table["timestamp_us"]) // _DAY_US
        for day in np.unique(days):
            target = folder / f"date={_date(int(day))}" / f"{segment.name}.parquet"
            write_parquet(table.filter(pa.array(days == day)), target)
        if kind is EXPOSURES:
            write_shown(folder, segment.name, table)
    corrupt = frames.corrupt + undecodable
    if corrupt:
        keep = folder / CORRUPT
        keep.mkdir(exist_ok=True)
        segment.path.rename(keep / f"{segment.name}.seg")
    else:
        segment.path.unlink()
    return Rolled(1, len(records), corrupt, int(frames.torn), 0)


def write_parquet(table: pa.Table, target: Path) -> None:
    import pyarrow.parquet as pq

    target.parent.mkdir(exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    # Ids of users are in it; one that a killed process has left is written over.
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    part.rename(target)


def _decode(kind: LogKind, payloads: Iterable[bytes]) -> tuple[list[Any], int]:
    """Records, and how many payloads are none.

    Raises:
        DataError: a schema that this code does not know.
    """
    records, bad = [], 0
    for payload in payloads:
        try:
            records.append(kind.decode(payload))
        except msgspec.DecodeError:
            bad += 1
    return records, bad


def _date(day: int) -> str:
    return date.fromordinal(_EPOCH + day).isoformat()


def day_of(timestamp_us: int) -> str:
    return datetime.fromtimestamp(timestamp_us / 1e6, UTC).date().isoformat()


def read(home: Path, kind: LogKind, since_us: int | None = None, until_us: int | None = None) -> pa.Table:
    """Every record with `since_us` ≤ timestamp < `until_us`, from open and rolled segments, each once.

    Columns: `kind.arrow`; the order is that of writing within a process and none across processes.

    Raises:
        DataError: a record of a schema that this code does not know.
    """
    import pyarrow.compute as pc
    import pyarrow.dataset as ds  # brings pandas where it is installed: never into a serving process at its start

    folder = log_folder(home, kind)
    tables: list[pa.Table] = []
    read_already: set[str] = set()
    # Segments first: one that is rolled away before it is read has its Parquet files by then.
    for segment in segments(folder):
        try:
            data = segment.path.read_bytes()
        except FileNotFoundError:
            continue
        read_already.add(segment.name)
        records, _ = _decode(kind, parse(data).payloads)
        tables.append(kind.table([r for r in records if _within(r.timestamp_us, since_us, until_us)]))
    files = [p for p in parquet_files(folder, since_us, until_us) if p.stem not in read_already]
    if files:
        condition = pc.field("timestamp_us") >= (since_us if since_us is not None else -(1 << 62))
        condition &= pc.field("timestamp_us") < (until_us if until_us is not None else 1 << 62)
        found = ds.dataset([str(p) for p in files], schema=kind.arrow, format="parquet").to_table(filter=condition)
        tables.insert(0, found)
    return pa.concat_tables(tables) if tables else kind.arrow.empty_table()


def parquet_files(folder: Path, since_us: int | None = None, until_us: int | None = None) -> list[Path]:
    """Rolled files of the days that the interval touches."""
    first = f"date={day_of(since_us)}" if since_us is not None else ""
    last = f"date={day_of(until_us)}" if until_us is not None else "date=~"
    return sorted(
        path
        for directory in folder.glob("date=*")
        if first <= directory.name <= last
        for path in directory.glob("*.parquet")
        if not path.name.startswith(".")
    )


def _within(timestamp_us: int, since_us: int | None, until_us: int | None) -> bool:
    return (since_us is None or timestamp_us >= since_us) and (until_us is None or timestamp_us < until_us)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bentos.telemetry.roll", description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True)
    home = parser.parse_args(arguments).home
    os.nice(10)  # it runs beside processes that answer requests
    try:
        rolled = roll(home)
    except OSError as error:
        print(f"rolling the logs of {home}: {error}", file=sys.stderr)
        return 1
    if rolled.corrupt or rolled.refused:
        print(f"rolling the logs of {home}: {rolled}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
