"""From the logs under `home` to snapshots: follows them while a release runs, and reads them again after a restart.

A call reads for a few seconds at most. As long as it has not caught up there is no snapshot but a problem: evidence
that is half read would be wrong, not early.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from bentos.telemetry.attempts import read_attempts
from bentos.telemetry.event_log import hidden_users, read_events
from bentos.telemetry.exposures import read_exposures
from bentos.telemetry.kinds import ATTEMPTS, EXPOSURES
from bentos.telemetry.tail import EventTail, Tail
from contracts.errors import StreamRecError
from contracts.measurements import Measured, Snapshot
from contracts.settings import Settings
from contracts.user_keys import UserKeys
from monitoring.evidence.cells import Sums
from monitoring.evidence.snapshot import NO_DATA, measure, snapshot
from monitoring.evidence.sql import sql_sums
from monitoring.evidence.tally import Tally
from monitoring.evidence.watch import Said, said_by_the_watch, watched
from registry.releases.policy import Metric
from registry.releases.values import Release

BUDGET_S = 5.0  # of reading in one call
PIECE = 50_000  # records of one read
AGAIN_US = 10_000_000  # after logs that could not be read: they are read from their beginning
SQL_EVERY_US = 60_000_000  # SQL reads everything again
SQL_RECORDS = 2_000_000

# What the tally needs of each log: columns that are not made cost nothing.
EXPOSURE_COLUMNS = ("request_id", "timestamp_us", "unit", "assigned", "degradation", "item_ids", "experiments")
ATTEMPT_COLUMNS = (
    "request_id",
    "timestamp_us",
    "unit",
    "variant",
    "shadow",
    "release",
    "outcome",
    "ms",
    "degradation",
    "n_items",
    "score_min",
    "score_max",
    "schema_ok",
    "forced",
    "context",
    "panel",
    "compared",
)


class Followed:
    """The logs since a moment, tallied as they grow."""

    def __init__(
        self, home: Path, tally: Tally, *, event_log: str = "sqlite", hide: Callable[[str], str] | None = None
    ) -> None:
        """hide: what an event's user is called in exposures and attempts."""
        self.tally = tally
        self._hide = hide
        self.records = 0
        self._exposures = Tail(home, EXPOSURES, tally.since_us, EXPOSURE_COLUMNS)
        self._attempts = Tail(home, ATTEMPTS, tally.since_us, ATTEMPT_COLUMNS)
        self._events = EventTail(home, tally.since_us, event_log=event_log)

    def catch_up(self, now_us: int, budget_s: float = BUDGET_S) -> bool:
        """Read what is new. False: there is more than fitted into the time.

        Attempts first, as they carry the context of exposures; events last, as they name exposures.

        Raises:
            StreamRecError, OSError: a log cannot be read.
        """
        end = time.monotonic() + budget_s
        while True:
            attempts = self._attempts.read(PIECE)
            exposures = self._exposures.read(PIECE)
            events = hidden_users(self._events.read(PIECE), self._hide)
            self.tally.add(exposures, attempts, events, now_us=now_us)
            read = len(attempts) + len(exposures) + len(events)
            self.records += read
            if max(len(attempts), len(exposures), len(events)) < PIECE:
                self.tally.forget(now_us)
                return True
            if time.monotonic() > end:
                return False

    @property
    def corrupt(self) -> int:
        """Damaged stretches of the logs that were skipped."""
        return self._exposures.corrupt + self._attempts.corrupt


class Evidence:
    """Snapshots of the release under way; a new release or analysis starts from the logs again."""

    def __init__(
        self,
        home: Path,
        *,
        event_log: str = "sqlite",
        keys: UserKeys | None = None,
        budget_s: float = BUDGET_S,
        said: Said | None = None,
    ) -> None:
        self._home = home
        self._said = said
        self._keys = keys
        self._event_log = event_log
        self._budget_s = budget_s
        self._key: tuple[str, int, str] | None = None
        self._followed: Followed | None = None
        self._sql: dict[str, dict[str, Sums] | str] = {}
        self._sql_us: int | None = None
        self._failed: tuple[int, str] | None = None

    def __call__(self, release: Release, now_us: int) -> Snapshot:
        key = (release.id, release.since_us, release.policy_text.sha256)
        if key != self._key or self._followed is None:
            tally = Tally(
                release.policy.metrics, release=release.id, unit=release.policy.unit, since_us=release.since_us
            )
            hide = _hide(self._keys, release.since_us)
            followed = Followed(self._home, tally, event_log=self._event_log, hide=hide)
            self._key, self._followed, self._sql_us = key, followed, None
        followed = self._followed
        if self._failed and 0 <= now_us - self._failed[0] < AGAIN_US:
            return _nothing(release, now_us, self._failed[1])
        try:
            whole = followed.catch_up(now_us, self._budget_s)
        except (StreamRecError, OSError) as error:
            self._key = None  # half a piece may be counted: from the beginning
            self._failed = (now_us, f"the logs cannot be read: {error}")
            return _nothing(release, now_us, self._failed[1])
        self._failed = None
        if not whole:
            return _nothing(release, now_us, f"the logs are being read: {followed.records:,} records so far")
        found = snapshot(release, followed.tally, now_us)
        more = self._sql_metrics(release, now_us) | self._watched(release, now_us)
        return found.model_copy(update={"metrics": found.metrics | more})

    def _watched(self, release: Release, now_us: int) -> dict[str, Measured]:
        metrics = [m for m in release.policy.metrics if m.kind == "watch"]
        if not metrics:
            return {}
        if self._said is None:
            return {m.name: Measured(name=m.name, problem="nobody watches here") for m in metrics}
        try:
            names, signals = self._said(release.candidate.bento)
        except StreamRecError as error:
            return {m.name: Measured(name=m.name, problem=error.message) for m in metrics}
        return {m.name: watched(m, names, signals, now_us) for m in metrics}

    def _sql_metrics(self, release: Release, now_us: int) -> dict[str, Measured]:
        metrics = [m for m in release.policy.metrics if m.kind == "sql"]
        if not metrics:
            return {}
        step = release.current
        if step is None or step.kind == "shadow":
            why = "nobody is on the candidate in a shadow step"
            return {m.name: Measured(name=m.name, problem=why) for m in metrics}
        if self._sql_us is None or not 0 <= now_us - self._sql_us < SQL_EVERY_US:
            self._sql, self._sql_us = self._ask(release, metrics, now_us), now_us
        compared = step.weight < 100
        return {m.name: _of_sql(m, self._sql[m.name], release, compared) for m in metrics}

    def _ask(self, release: Release, metrics: Sequence[Metric], now_us: int) -> dict[str, dict[str, Sums] | str]:
        if self._followed and self._followed.records > SQL_RECORDS:
            why = f"{self._followed.records:,} records are more than SQL is given ({SQL_RECORDS:,})"
            return dict.fromkeys((m.name for m in metrics), why)
        hide = _hide(self._keys, release.since_us)
        tables = tables_since(self._home, release.since_us, now_us, event_log=self._event_log, hide=hide)
        return {m.name: sql_sums(m.sql or "", release.id, tables) for m in metrics}


def evidence_source(settings: Settings) -> Callable[[Release, int], Snapshot]:
    """What the controller asks. A call may take seconds: it reads files."""
    keys = UserKeys.of(settings.user_keys)
    return Evidence(settings.home, event_log=settings.event_log, keys=keys, said=said_by_the_watch(settings))


def experiment_evidence(
    settings: Settings,
    experiment_id: str,
    metrics: Sequence[Metric],
    *,
    since_us: int,
    until_us: int | None = None,
    unit: str = "user",
) -> Tally:
    """Everything that is logged of an experiment, with the arms `treatment` and `control`.

    Raises:
        StreamRecError, OSError: a log cannot be read.
    """
    tally = Tally(
        metrics,
        release=experiment_id,
        unit=unit,  # type: ignore[arg-type]
        since_us=since_us,
        arms=("treatment", "control"),
        by_request=True,
    )
    now_us = until_us or time.time_ns() // 1000
    hide = _hide(UserKeys.of(settings.user_keys), since_us)
    if until_us is None:
        Followed(settings.home, tally, event_log=settings.event_log, hide=hide).catch_up(now_us, float("inf"))
    else:
        tables = tables_since(settings.home, since_us, until_us, event_log=settings.event_log, hide=hide)
        tally.add(tables["exposures"], tables["attempts"], tables["events"], now_us=now_us)
    return tally


def tables_since(
    home: Path,
    since_us: int,
    until_us: int,
    *,
    event_log: str = "sqlite",
    hide: Callable[[str], str] | None = None,
) -> dict[str, pa.Table]:
    return {
        "exposures": read_exposures(home, since_us, until_us + 1),
        "attempts": read_attempts(home, since_us, until_us + 1),
        "events": hidden_users(read_events(home, since_us, until_us + 1, event_log=event_log), hide),
    }


def _hide(keys: UserKeys | None, since_us: int) -> Callable[[str], str] | None:
    """No key is changed while a release or an experiment runs: the one of its beginning hides all of it."""
    return keys.at(since_us).hide if keys else None


def _of_sql(metric: Metric, found: dict[str, Sums] | str, release: Release, compared: bool) -> Measured:
    if isinstance(found, str):
        return Measured(name=metric.name, problem=found)
    mine = found.get("candidate", Sums())
    if not mine.n:
        return Measured(name=metric.name, problem=NO_DATA)
    theirs = found.get("control", Sums()) if compared else None
    measured = measure(metric, mine, theirs, release.policy.alpha_of(metric))
    return measured.model_copy(update={"samples": round(mine.sum_y)})


def _nothing(release: Release, now_us: int, problem: str) -> Snapshot:
    return Snapshot(
        release=release.id, step=release.step, taken_us=now_us, since_us=release.since_us, problem=problem[:2000]
    )
