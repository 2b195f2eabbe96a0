"""Logged features against the offline join at the same moment, row by row: which feature, which rows, and of what kind.

    missing    the default was served where the log had something to say
    staleness  what was served had been true, and was too old: past its lifetime, or older than its stamp claims
    time       what was served is true at a moment some hours away: timestamps are shifted, or of another time zone
    code       none of these: it is computed in another way
    label      events count as wishes by another definition (monitoring/skew/labels.py)

A batch value that is younger than its lifetime may differ from the join at the moment of the request, since it was true
at its stamp: that is counted (`aged`), and is no skew. What came later than it happened is not held against serving.
Pure: whoever calls gives the values. A kind is that of most rows which differ.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from features.definitions import HOUR_S, FeatureDefinition
from features.offline.leakage import same
from features.resolve import default_of
from monitoring.signals import Verdict
from monitoring.skew.limits import LEAST_USERS

HOUR_US = 3_600_000_000
MINUTE_US = 60_000_000
DAY_US = 24 * HOUR_US
STREAM_LAG_US = MINUTE_US  # within which an event must have reached the features: the service level of streams
# Time zones are whole hours apart, but for these.
SHIFTS_US = tuple(
    sorted((int(h * HOUR_US) for h in (*range(-14, 0), *range(1, 15), -9.5, -5.5, -3.5, 3.5, 5.5, 9.5)), key=abs)
)
AGES_US = tuple(days * DAY_US for days in (1, 2, 3, 7, 14, 30))
EXPLAINED = 0.8  # of the rows that differ: a moment must explain so many to be the reason
EXAMPLES = 5

KINDS = ("missing", "staleness", "time", "code", "label")
# (entity, moment) → what the log says of it, None where the entity had no past.
Look = Callable[[Sequence[tuple[str, int]]], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Logged:
    """One value of one answer. entity: user or item; age_s: None where it was never written; source: `store` or
    `default`; clock_us: the moment of the request on the data set's clock."""

    request_id: str
    entity: str
    clock_us: int
    value: Any
    age_s: float | None
    source: str

    @property
    def stamp_us(self) -> int:
        return self.clock_us - round((self.age_s or 0.0) * 1e6)


@dataclass(frozen=True, slots=True)
class Difference:
    """kind: of `KINDS`. why: what this row shows."""

    request_id: str
    entity: str
    clock_us: int
    logged: Any
    offline: Any
    kind: str
    why: str

    def document(self) -> dict[str, Any]:
        return {
            "request_id": self.request_id,
            "entity": self.entity,
            "clock_us": self.clock_us,
            "logged": _short(self.logged),
            "offline": _short(self.offline),
            "kind": self.kind,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class RowSkew:
    """compared: values; different: of them, for a reason that is one of `KINDS`; aged: true at their stamp and young
    enough. kind: of most that differ, empty without any."""

    feature: str
    verdict: Verdict
    compared: int
    different: int
    aged: int
    kind: str
    why: str
    examples: tuple[dict[str, Any], ...] = ()
    kinds: Mapping[str, int] | None = None

    @property
    def share(self) -> float | None:
        return self.different / self.compared if self.compared else None


@dataclass(frozen=True, slots=True)
class RowsCompared:
    """requests: whose values were compared. data: the log of the offline join."""

    requests: int
    data: str
    verdict: Verdict
    why: str
    features: tuple[RowSkew, ...] = ()
    problems: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "data": self.data,
            "verdict": self.verdict,
            "why": self.why,
            "features": {
                one.feature: {
                    "verdict": one.verdict,
                    "compared": one.compared,
                    "different": one.different,
                    "aged": one.aged,
                    "kind": one.kind,
                    "kinds": dict(one.kinds or {}),
                    "why": one.why,
                    "rows": list(one.examples),
                }
                for one in self.features
            },
            "problems": list(self.problems),
        }


def compare_feature(
    definition: FeatureDefinition, rows: Sequence[Logged], look: Look, *, limit: float, at_stamp: bool = False
) -> RowSkew:
    """
    Args:
        look: what the log says of the feature, in the form in which it was logged.
        limit: share of values that may differ.
        at_stamp: compare at the value's own stamp only, where the moment of each request would be a pass of its own.
    """
    asked = [(row.entity, row.stamp_us if at_stamp else row.clock_us) for row in rows]
    truth = look(asked)
    differing = [
        (row, true) for row, true in zip(rows, truth, strict=True) if not same(row.value, _or_default(definition, true))
    ]
    found: list[Difference] = []
    aged = 0
    open_: list[tuple[Logged, Any]] = []
    at_their_stamp = look([(row.entity, row.stamp_us) for row, _ in differing]) if differing and not at_stamp else []
    for number, (row, true) in enumerate(differing):
        offline = _or_default(definition, true)
        if row.source == "default":
            found.append(_defaulted(row, offline))
        elif not at_stamp and same(row.value, _or_default(definition, at_their_stamp[number])):
            if _too_old(definition, row):
                age = f"{(row.age_s or 0) / 3600:.1f} h old, it lives {(definition.ttl_s or 0) / 3600:g} h"
                found.append(_difference(row, offline, "staleness", age))
            else:
                aged += 1
        else:
            open_.append((row, offline))
    if at_stamp:
        fresh = [row for row, true in zip(rows, truth, strict=True) if same(row.value, _or_default(definition, true))]
        for row in fresh:
            if row.source == "store" and _too_old(definition, row):
                age = f"{(row.age_s or 0) / 3600:.1f} h old, it lives {(definition.ttl_s or 0) / 3600:g} h"
                found.append(_difference(row, row.value, "staleness", age))
    found += _explained(definition, open_, look)
    return summed_up(definition.name, len(rows), found, aged, limit)


def summed_up(feature: str, compared: int, found: Sequence[Difference], aged: int, limit: float) -> RowSkew:
    """The verdict over what was found of one feature."""
    kinds = Counter(one.kind for one in found)
    kind = max(KINDS, key=lambda k: kinds[k]) if kinds else ""
    examples = tuple(one.document() for one in found if one.kind == kind)[:EXAMPLES]
    if compared < LEAST_USERS:
        verdict: Verdict = "inconclusive"
        why = f"{compared} values were logged, too few to say ({LEAST_USERS} at least)"
    elif len(found) / compared > limit:
        verdict = "breach"
        first = next(one for one in found if one.kind == kind)
        why = f"{len(found)} of {compared} values differ from the offline join, most by {kind}: {first.why}"
    else:
        verdict, why = "ok", ""
    return RowSkew(feature, verdict, compared, len(found), aged, kind, why, examples, kinds)


def compare_interactions(
    name: str, rows: Sequence[Logged], truth: Sequence[Sequence[str]], received_us: Mapping[str, int], *, limit: float
) -> RowSkew:
    """The last interactions, as `item<TAB>event<TAB>µs`, newest first.

    Args:
        truth: of each row, at the moment of the request.
        received_us: interaction → when the service had it, wall clock; those that are not in it it always had.
    """
    found, aged = [], 0
    for row, offline in zip(rows, truth, strict=True):
        logged = list(row.value or ())
        known = [i for i in offline if received_us.get(i, 0) <= row.clock_us - STREAM_LAG_US]
        ours = [i for i in logged if received_us.get(i, 0) <= row.clock_us - STREAM_LAG_US]
        n = min(len(known), len(ours)) if len(known) != len(offline) or len(ours) != len(logged) else None
        if (ours == known) if n is None else (ours[:n] == known[:n] and (n > 0 or not known)):
            aged += logged != list(offline)
            continue
        found.append(_of_interactions(row, ours, known))
    return summed_up(name, len(rows), found, aged, limit)


def _of_interactions(row: Logged, logged: list[str], offline: list[str]) -> Difference:
    if not logged:
        if row.age_s is not None:
            return _difference(
                row, offline, "staleness", f"the stream was {row.age_s / 3600:.1f} h old: none was served"
            )
        return _difference(row, offline, "missing", "no interaction was served, the log has some")
    ours, theirs = [i.split("\t") for i in logged], [i.split("\t") for i in offline]
    n = min(len(ours), len(theirs))
    if n and [i[:2] for i in ours[:n]] == [i[:2] for i in theirs[:n]]:
        apart = {int(a[2]) - int(b[2]) for a, b in zip(ours[:n], theirs[:n], strict=True)}
        if len(apart) == 1 and 0 not in apart:
            return _difference(row, offline, "time", f"every timestamp is {_hours(apart.pop())} off")
    if logged[0] in offline[1:]:
        at = offline.index(logged[0])
        oldest = int(theirs[-1][2])
        if logged[: len(offline) - at] == offline[at:] and all(int(i[2]) <= oldest for i in ours[len(offline) - at :]):
            return _difference(row, offline, "staleness", f"the newest {at} interactions had not arrived")
    return _difference(row, offline, "code", "other interactions than the log has")


def _defaulted(row: Logged, offline: Any) -> Difference:
    if row.age_s is not None:
        why = f"what the store had was {row.age_s / 3600:.1f} h old: the default was served"
        return _difference(row, offline, "staleness", why)
    return _difference(row, offline, "missing", "the default was served, the log has a value")


def _explained(definition: FeatureDefinition, open_: Sequence[tuple[Logged, Any]], look: Look) -> list[Difference]:
    """Values that are true at no moment that they claim: at which other one would most of them be?"""
    if not open_:
        return []
    some = open_[:40]
    moments = [*SHIFTS_US, *(-age for age in AGES_US)]
    pairs = [(row.entity, row.stamp_us + shift) for shift in moments for row, _ in some]
    values = look(pairs)
    best, explained = 0, 0
    for number, shift in enumerate(moments):
        at = values[number * len(some) : (number + 1) * len(some)]
        hits = sum(
            true is not None and same(row.value, _or_default(definition, true))
            for (row, _), true in zip(some, at, strict=True)
        )
        if hits > explained:
            best, explained = shift, hits
    if explained >= EXPLAINED * len(some):
        if best in SHIFTS_US:
            kind, why = "time", f"it is what was true {_hours(best)} away from its stamp"
        else:
            kind, why = "staleness", f"it is what was true {-best // DAY_US} days before its stamp"
    else:
        kind, why = "code", "it is true at no moment near its stamp: it is computed in another way"
    return [_difference(row, offline, kind, why) for row, offline in open_]


def _or_default(definition: FeatureDefinition, true: Any) -> Any:
    return default_of(definition) if true is None else true


def _too_old(definition: FeatureDefinition, row: Logged) -> bool:
    return definition.ttl_s is not None and (row.age_s or 0.0) > definition.ttl_s


def _difference(row: Logged, offline: Any, kind: str, why: str) -> Difference:
    return Difference(row.request_id, row.entity, row.clock_us, row.value, offline, kind, why)


def _hours(us: int) -> str:
    return f"{us / 1e6 / HOUR_S:+g} h"


def _short(value: Any) -> Any:
    text = str(value)
    return value if len(text) <= 200 else text[:200] + "…"
