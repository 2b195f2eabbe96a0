"""Counts of each minute of the last three days, kept from check to check so that each reads only what is new.

    home/watch/minutes.npz     int64 [M, 6]: minute, requests, answered, timed, in time, and the sum of ms

A request belongs to the minute in which it began. The last `OPEN` minutes are counted anew each time: a process's
segment may reach the disk late, and the records of one request lie in two logs.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.levels.burn import KEPT_MINUTES, MINUTE_US

FILE = Path("watch") / "minutes.npz"
OPEN = 3
MINUTE, REQUESTS, ANSWERED, TIMED, IN_TIME, MS = range(6)
_COLUMNS = 6

Counts = NDArray[np.int64]
# (since_us, until_us) → exposures with `timestamp_us, outcome`; attempts with `request_id, timestamp_us, shadow, ms`.
Read = Callable[[int, int], tuple[pa.Table, pa.Table]]


def empty() -> Counts:
    return np.empty((0, _COLUMNS), np.int64)


def count(exposures: pa.Table, attempts: pa.Table, limit_ms: float) -> Counts:
    """One row a minute, in order. The time of a request is that of all calls which it waited for."""
    answered = pc.is_in(exposures["outcome"], value_set=pa.array(["ok", "empty"]))
    ours = attempts.filter(pc.invert(attempts["shadow"]))
    waits = ours.group_by("request_id").aggregate([("ms", "sum"), ("timestamp_us", "min")])
    ms = waits["ms_sum"].to_numpy(zero_copy_only=False) if len(waits) else np.empty(0)
    asked = _minutes(exposures["timestamp_us"])
    timed = _minutes(waits["timestamp_us_min"]) if len(waits) else np.empty(0, np.int64)
    minutes = np.unique(np.concatenate([asked, timed]))
    rows = np.zeros((len(minutes), _COLUMNS), np.int64)
    rows[:, MINUTE] = minutes
    at, of = np.searchsorted(minutes, asked), np.searchsorted(minutes, timed)
    np.add.at(rows[:, REQUESTS], at, 1)
    np.add.at(rows[:, ANSWERED], at, np.asarray(answered.to_numpy(zero_copy_only=False), np.int64))
    np.add.at(rows[:, TIMED], of, 1)
    np.add.at(rows[:, IN_TIME], of, (ms <= limit_ms).astype(np.int64))
    np.add.at(rows[:, MS], of, np.rint(ms).astype(np.int64))
    return rows


def follow(home: Path, read: Read, limit_ms: float, now_us: int) -> Counts:
    """The counts of the last three days up to now.

    Raises:
        StreamRecError, OSError: the logs cannot be read.
    """
    path = home / FILE
    now_minute = now_us // MINUTE_US
    known = _load(path, limit_ms)
    known = known[(known[:, MINUTE] >= now_minute - KEPT_MINUTES) & (known[:, MINUTE] < now_minute)]
    from_minute = now_minute - KEPT_MINUTES
    if len(known):
        from_minute = int(known[-1, MINUTE]) - OPEN
        known = known[known[:, MINUTE] < from_minute]
    new = count(*read(from_minute * MINUTE_US, now_us), limit_ms)
    rows = np.concatenate([known, new])
    _save(path, rows, limit_ms)
    return rows


def _minutes(stamps: pa.ChunkedArray) -> Counts:
    return np.asarray(stamps.to_numpy(), np.int64) // MINUTE_US


def _load(path: Path, limit_ms: float) -> Counts:
    """Empty where there is none, it is damaged, or it was counted with another limit: then it is counted anew."""
    try:
        with np.load(path, allow_pickle=False) as file:
            rows = np.asarray(file["rows"], np.int64)
            return rows if float(file["limit_ms"]) == limit_ms and rows.shape[1:] == (_COLUMNS,) else empty()
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return empty()


def _save(path: Path, rows: Counts, limit_ms: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        np.savez(part, rows=rows, limit_ms=np.array(limit_ms))
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
