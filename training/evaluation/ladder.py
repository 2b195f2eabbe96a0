"""The baseline ladder: does a more complex model pay for itself? NumPy only.

Rungs stand in order of complexity: heuristic, linear, boosted trees, deep. Each is compared with the best of the
simpler ones, user by user: a difference of two models on the same users has a smaller error than either of their means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from training.evaluation.metrics import Estimate
from training.evaluation.report import Scores

Family = Literal["heuristic", "linear", "boosted trees", "deep"]
Worth = Literal["worth it", "not worth it", "inconclusive"]

FAMILIES: tuple[Family, ...] = ("heuristic", "linear", "boosted trees", "deep")
METRIC = "ndcg@10"
TOLERANCE = 0.01  # of the better one's figure: what complexity must bring at least
ERRORS = 2.0  # standard errors on either side


@dataclass(frozen=True, slots=True)
class Cost:
    """train_s: until it could answer, by the clock. serve_us: one request, a slate out of 500 candidates, alone, in CPU
    time (the middle one of some). None: not known."""

    train_s: float | None = None
    serve_us: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands on the ladder: figures, what kind of model it is, and what it costs."""

    family: Family
    scores: Scores
    cost: Cost = Cost()


@dataclass(frozen=True, slots=True)
class Rung:
    """uplift: over the simplest stable model; gain: over `against`, the best simpler model that was worth its cost.
    Both are absolute, paired over users. verdict: None for the simplest stable one itself."""

    name: str
    family: Family
    value: Estimate
    uplift: Estimate
    against: str
    gain: Estimate
    cost: Cost
    verdict: Worth | None
    why: str

    def plain(self) -> dict[str, Any]:
        """For JSON and MLflow; a figure that is not known is None."""
        return {
            "model": self.name,
            "family": self.family,
            METRIC: _number(self.value.value),
            f"{METRIC}_se": _number(self.value.se),
            "uplift": _number(self.uplift.value),
            "uplift_se": _number(self.uplift.se),
            "against": self.against,
            "gain": _number(self.gain.value),
            "gain_se": _number(self.gain.se),
            "train_s": self.cost.train_s,
            "serve_us": self.cost.serve_us,
            "verdict": self.verdict,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Ladder:
    """base: the simplest stable model. choice: the simplest one within `tolerance` of the best figure. "": there is
    none."""

    rungs: tuple[Rung, ...]
    base: str
    choice: str
    tolerance: float

    def plain(self) -> dict[str, Any]:
        return {
            "base": self.base,
            "choice": self.choice,
            "tolerance": self.tolerance,
            "rungs": [rung.plain() for rung in self.rungs],
        }

    def rung(self, name: str) -> Rung:
        return next(rung for rung in self.rungs if rung.name == name)


def ladder(entries: Sequence[Entry], tolerance: float = TOLERANCE) -> Ladder:
    """Compare the entries, sorted by family and within one as given, on the users that they all answered.

    The simplest stable model is the first whose figure is more than two standard errors above zero. After it, each is
    worth it when its gain over the best simpler one is more than `tolerance` of that one's figure by two standard
    errors, not worth it when it is less by two, else inconclusive.
    """
    order = sorted(entries, key=lambda entry: FAMILIES.index(entry.family))  # stable
    base = next((e for e in order if _stable(e.scores)), None)
    incumbent = None
    rungs = []
    for entry in order:
        if entry is base:
            incumbent = base
        rung = _rung(entry, base, incumbent, tolerance)
        rungs.append(rung)
        if rung.verdict == "worth it":
            incumbent = entry
    return Ladder(tuple(rungs), base.scores.name if base else "", _choice(order, tolerance), tolerance)


def paired(ours: Scores, theirs: Scores, metric: str = METRIC) -> Estimate:
    """Ours minus theirs over the users of one test set; unknown where either was not run or kept no figures by user."""
    a, b = ours.by_user.get(metric), theirs.by_user.get(metric)
    if a is None or b is None or len(a) != len(b):
        return UNKNOWN
    return Estimate.of(a - b)


UNKNOWN = Estimate(float("nan"), float("nan"), 0)


def _rung(entry: Entry, base: Entry | None, incumbent: Entry | None, tolerance: float) -> Rung:
    scores = entry.scores
    value = scores.overall.get(METRIC, UNKNOWN)
    uplift = paired(scores, base.scores) if base else UNKNOWN
    verdict: Worth | None
    if scores.not_run is not None:
        against, gain, verdict, why = "", UNKNOWN, "inconclusive", f"not run: {scores.not_run}"
    elif incumbent is None:
        against, gain, verdict, why = "", UNKNOWN, "inconclusive", "its figure cannot be told from zero"
    elif entry is base:
        against, gain, verdict, why = "", UNKNOWN, None, "the simplest stable model"
    else:
        against, gain = incumbent.scores.name, paired(scores, incumbent.scores)
        verdict, why = _verdict(gain, incumbent.scores.value(METRIC), against, tolerance)
    return Rung(scores.name, entry.family, value, uplift, against, gain, entry.cost, verdict, why)


def _verdict(gain: Estimate, reference: float, against: str, tolerance: float) -> tuple[Worth, str]:
    if not np.isfinite(gain.value) or not np.isfinite(gain.se):
        return "inconclusive", f"no paired figures with {against}"
    needed = tolerance * reference
    said = f"{gain.value / reference:+.1%} ± {gain.se / reference:.1%} on {against}, {tolerance:.0%} needed"
    if gain.value - ERRORS * gain.se > needed:
        return "worth it", said
    if gain.value + ERRORS * gain.se < needed:
        return "not worth it", said
    return "inconclusive", said


def _stable(scores: Scores) -> bool:
    value = scores.overall.get(METRIC, UNKNOWN)
    return scores.not_run is None and bool(value.value > ERRORS * value.se)


def _choice(order: Sequence[Entry], tolerance: float) -> str:
    figures = [(e.scores.name, e.scores.value(METRIC)) for e in order if e.scores.not_run is None]
    known = [(name, value) for name, value in figures if np.isfinite(value)]
    top = max((value for _, value in known), default=0.0)
    return next((name for name, value in known if value >= (1 - tolerance) * top and top > 0), "")


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
