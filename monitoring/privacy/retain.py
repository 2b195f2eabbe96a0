"""How long records are kept: partitions, events and drift pages that are older, or more, than the settings say go."""

import itertools
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bentos.telemetry.event_logs import is_redis
from bentos.telemetry.kinds import ATTEMPTS, CONTEXTS, EXPOSURES, LogKind
from bentos.telemetry.roll import day_of, log_folder, roll, roll_lock
from contracts.errors import Unreachable
from contracts.settings import Settings
from features.online.streaming import EVENTS_DB

DAY_US = 86_400_000_000
REPORTS = "reports"  # of a home: the drift pages that the watch writes
AT_ONCE = 20_000  # events of one transaction: those that come meanwhile do not wait for long


@dataclass(frozen=True, slots=True)
class Retained:
    """partitions: days removed, by log; events: removed of `events.db`; pages: of `reports/`."""

    partitions: dict[str, int]
    events: int
    pages: int = 0


def retain(settings: Settings, now_us: int, *, dry_run: bool = False) -> Retained:
    """Remove what is past its time, whole days at once: a day goes when its last moment is too old.

    Any process may do it, at any time; whatever is killed in between, the next one goes on. An event log in Redis trims
    itself (`event_log_days`).

    Raises:
        Unreachable: `events.db` cannot be written.
    """
    days = {
        EXPOSURES: settings.keep_exposures_d,
        CONTEXTS: settings.keep_contexts_d,
        ATTEMPTS: settings.keep_attempts_d,
    }
    partitions = {
        kind.name: _partitions(settings.home, kind, now_us - int(keep_d * DAY_US), dry_run=dry_run)
        for kind, keep_d in days.items()
    }
    events = 0 if is_redis(settings.event_log) else _events(settings, now_us, dry_run=dry_run)
    return Retained(partitions, events, _pages(settings.home / REPORTS, settings.reports_mb << 20, dry_run=dry_run))


def _partitions(home: Path, kind: LogKind, before_us: int, *, dry_run: bool) -> int:
    folder = log_folder(home, kind)
    if not folder.exists():
        return 0
    if not dry_run:
        roll(home, (kind,))  # an old segment of a dead process would bring its day back
    first = f"date={day_of(before_us)}"  # the day in which the limit lies stays
    old = [directory for directory in sorted(folder.glob("date=*")) if directory.name < first]
    if old and not dry_run:
        with roll_lock(folder) as ours:
            if not ours:
                return 0
            for directory in old:
                gone = directory.rename(directory.with_name(f".{directory.name}"))  # readers see a day whole or not
                shutil.rmtree(gone)
    for left in folder.glob(".date=*"):
        if not dry_run:
            shutil.rmtree(left)
    return len(old)


def _pages(folder: Path, room: int, *, dry_run: bool) -> int:
    """The oldest pages that are over the room, in bytes; the newest one stays: an alert names it."""
    newest_first = sorted(folder.glob("drift-*.html"), key=lambda page: page.stat().st_mtime, reverse=True)
    sizes = itertools.accumulate(page.stat().st_size for page in newest_first)
    over = [page for place, (page, size) in enumerate(zip(newest_first, sizes, strict=True)) if place and size > room]
    if not dry_run:
        for page in over:
            page.unlink(missing_ok=True)
    return len(over)


def _events(settings: Settings, now_us: int, *, dry_run: bool) -> int:
    path = settings.home / EVENTS_DB
    if not path.exists():
        return 0
    before_us = now_us - int(settings.keep_events_d * DAY_US)
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as db:
            if dry_run:
                return int(db.execute("SELECT count(*) FROM events WHERE received_us < ?", (before_us,)).fetchone()[0])
            gone = 0
            # In the order of acceptance, so that no pass over the whole table is needed to know that all is done.
            query = (
                "DELETE FROM events WHERE seq IN (SELECT seq FROM (SELECT seq, received_us FROM events ORDER BY seq"
                " LIMIT ?) WHERE received_us < ?)"
            )
            while n := db.execute(query, (AT_ONCE, before_us)).rowcount:
                gone += n
            return gone
    except sqlite3.Error as error:
        if "no such table" in str(error):
            return 0
        raise Unreachable(f"event store {path}: {error}") from error
