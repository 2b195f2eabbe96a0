"""The monitoring schema of a model: what is looked at, how often, what is too much, who is told, and what to do.

Built in: `monitoring/watch/schemas/*.toml`; an operator's own lie in `home/monitoring/` and go before. The schema of a
Bento is the one of its name, else `default`. Unknown keys are errors.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contracts.errors import NotFound, UsageError
from monitoring.signals import Signal

BUILT_IN = Path(__file__).with_name("schemas")
OWN = "monitoring"

Criticality = Literal["page", "ticket", "note"]
CRITICALITIES: tuple[Criticality, ...] = ("note", "ticket", "page")
CheckName = Literal["levels", "freshness", "drift", "online", "skew", "quality", "kept", "review", "watch"]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Watched(_Part):
    """One row: signals whose name fits `signal` (`*` and `?`). The first row that fits a name holds for it.

    check: what makes them. threshold: in the unit of the signal's value; a breach counts only where it is over that as
    well. It makes nothing stricter: what a check finds not to be significant is none for being large.
    """

    signal: Annotated[str, Field(min_length=1)]
    check: CheckName
    every_minutes: Positive
    criticality: Criticality
    owner: Annotated[str, Field(min_length=1)]
    runbook: Annotated[str, Field(pattern=r"^docs/runbooks/[\w-]+\.md$")]
    threshold: float | None = None

    def fits(self, name: str) -> bool:
        return fnmatchcase(name, self.signal)


class Holding(_Part):
    """How long a breach must last to be told, and how long all must be well to be over: from the first look that finds
    it so to the last, so that it takes two looks at least. Service levels are told at once: their windows have waited
    already."""

    hold_minutes: Annotated[float, Field(ge=0)] = 10
    clear_minutes: Annotated[float, Field(ge=0)] = 30
    quiet_hours: Annotated[float, Field(ge=0)] = 6
    flap_factor: Annotated[int, Field(ge=1)] = 3
    stale_hours: Positive = 26


class Levels(_Part):
    """Service levels. least_requests: in the longer window, below which a burn rate says nothing."""

    availability: Share = 0.999
    latency_ms: Positive = 200
    latency_share: Share = 0.95
    streaming_features_s: Positive = 60
    batch_lists_h: Positive = 36
    model_checked_h: Positive = 24
    model_h: Positive = 72
    least_requests: Annotated[int, Field(ge=1)] = 100


class Windows(_Part):
    """How far back a look at drift, skew and outcomes goes. season: against which past a move is excused. engine: of
    the tests; alibi-detect where it is installed, when not given."""

    drift_hours: Positive = 24
    season: Literal["hour", "weekday", "year"] | None = "weekday"
    engine: Literal["alibi", "scipy"] | None = None
    seed: int = 0


class Rule(_Part):
    """When to train. It fires when looks have found at least `least` of the signals that fit in breach for `for_hours`,
    from the first look to the last; a rule of kind `age` when the age that its signals measure, in hours, is over
    `max_hours`.

    only_with: the rule counts only together with a breach of one of these (drift that costs nothing is left alone).
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    kind: Literal["drift", "outcome", "slice", "age"]
    signals: Annotated[tuple[str, ...], Field(min_length=1)]
    least: Annotated[int, Field(ge=1)] = 1
    for_hours: Annotated[float, Field(ge=0)] = 0
    max_hours: Positive | None = None
    only_with: tuple[str, ...] = ()
    action: Literal["train", "batch"] = "train"

    @model_validator(mode="after")
    def _has_an_age(self) -> "Rule":
        if (self.kind == "age") != (self.max_hours is not None):
            raise ValueError("a rule of kind `age` has `max_hours`, and no other has")
        return self


class Retraining(_Part):
    """The retraining policy. cool_down_hours: after the end of a run, whatever became of it. most_a_week, cpu_hours of
    any 30 days: bounds on all runs. least_events: of users since the model was trained; with fewer there is nothing to
    learn. failures: runs that failed in a row, after which a person must look."""

    cool_down_hours: Annotated[float, Field(ge=0)] = 24
    most_a_week: Annotated[int, Field(ge=0)] = 3
    cpu_hours_a_month: Positive = 48
    least_events: Annotated[int, Field(ge=0)] = 1000
    failures: Annotated[int, Field(ge=1)] = 2
    release_policy: str | None = None
    base: Path | None = None  # a data set whose log goes before our own, as in `data export --base`
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _one_rule_a_name(self) -> "Retraining":
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError("two rules have one name")
        return self


class Review(_Part):
    """Answers for a person to look at: uncertain and dear at once. A slate is uncertain when its last item scores less
    than `margin` above the best one that was left out; dear when one of its items has `value`, a column of
    items.parquet, over `value_over`. most_a_day, most_open: bounds; the least certain come first."""

    margin: Annotated[float, Field(ge=0)] = 0.005
    value: str = "price"
    value_over: float = 100.0
    most_a_day: Annotated[int, Field(ge=0)] = 20
    most_open: Annotated[int, Field(ge=1)] = 200
    keep_days: Positive = 30
    owner: str = "ranking"


class Schema(_Part):
    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z][\w-]*$")]
    version: str
    description: str = ""
    holding: Holding = Holding()
    levels: Levels = Levels()
    windows: Windows = Windows()
    signals: Annotated[tuple[Watched, ...], Field(min_length=1, max_length=500)]
    retraining: Retraining = Retraining()
    review: Review = Review()

    @model_validator(mode="after")
    def _says_each_once(self) -> "Schema":
        names = [row.signal for row in self.signals]
        if len(set(names)) != len(names):
            raise ValueError("two rows have one signal")
        return self

    def row(self, name: str) -> Watched | None:
        return next((row for row in self.signals if row.fits(name)), None)

    def criticality(self, signal: Signal) -> Criticality:
        """Of its row; a ticket where none fits. A level that burns slowly is nobody's night."""
        row = self.row(signal.name)
        said = row.criticality if row else "ticket"
        slow = signal.family == "level" and signal.details.get("severity") == "ticket"
        return "ticket" if slow and said == "page" else said

    def every_minutes(self) -> dict[CheckName, float]:
        """Check → how often: as its most frequent signal asks."""
        found: dict[CheckName, float] = {}
        for row in self.signals:
            found[row.check] = min(row.every_minutes, found.get(row.check, row.every_minutes))
        return found

    def weighed(self, signal: Signal) -> Signal:
        """The signal by the threshold of its row, if it has one."""
        row = self.row(signal.name)
        limit = row.threshold if row else None
        if limit is None or signal.verdict != "breach" or signal.value is None or signal.value > limit:
            return signal
        cause = f"{signal.value:g}, a breach from {limit:g} on: {signal.cause}"
        return replace(signal, verdict="ok", threshold=limit, since=None, cause=cause)


def highest(criticalities: Iterable[Criticality]) -> Criticality:
    """`ticket` of none."""
    return max(criticalities, key=CRITICALITIES.index, default="ticket")


def schema_path(home: Path, name: str = "default") -> Path:
    """
    Raises:
        NotFound: neither this home nor the project has it.
    """
    for folder in (home / OWN, BUILT_IN):
        if (path := folder / f"{name}.toml").is_file():
            return path
    known = sorted({p.stem for folder in (home / OWN, BUILT_IN) for p in folder.glob("*.toml")})
    raise NotFound(
        f"no monitoring schema {name}; there are {', '.join(known)}", next_command="streamrec monitor schema"
    )


def read_schema(path: Path) -> Schema:
    """
    Raises:
        UsageError: not TOML, or not a schema: names each key.
    """
    try:
        return Schema.model_validate(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors()[:5])
        raise UsageError(f"{path} is no monitoring schema: {problems}") from error


def schema_of(home: Path, bento: str = "") -> Schema:
    """The schema for a Bento: that of its name, else `default`."""
    name = bento.partition(":")[0]
    if name and (home / OWN / f"{name}.toml").is_file():
        return read_schema(home / OWN / f"{name}.toml")
    return read_schema(schema_path(home))
