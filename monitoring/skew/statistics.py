"""Training's statistics of a feature against those of what was served.

    shift      (mean served − mean in training) / deviation in training
    ratio      deviation served / deviation in training
    missing    share of rows without a value of their own (null, or the default), served − in training
    unmet      of the words that were served, the share that training never met

A measure breaches when its distance from the limit is more than two standard errors, and holds when it is as far on the
good side; between them the window is too small to say. The errors count users, not rows: the rows of one user are no
independent looks at anything. The rates are over rows all the same, since that is what the ranker reads.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from features.summaries import Summary
from monitoring.signals import Verdict
from monitoring.skew.limits import LEAST_USERS, Limits

SURE = 2.0  # standard errors


@dataclass(frozen=True, slots=True)
class Measure:
    """value: what was measured; error: its standard error; limit: what it is held against."""

    name: str
    value: float
    error: float
    limit: float
    verdict: Verdict

    def sentence(self) -> str:
        return f"{self.name} {self.value:+.3g} ± {SURE * self.error:.2g} (limit {self.limit:g})"


@dataclass(frozen=True, slots=True)
class FeatureSkew:
    """n, users: rows and users that it is judged by. why: a sentence, empty where it holds. reads: whether the ranker
    reads the feature; importance: AUC that it loses without it, None where that is not known."""

    feature: str
    verdict: Verdict
    n: int
    users: int
    why: str
    measures: tuple[Measure, ...] = ()
    reads: bool = True
    importance: float | None = None


def compare(
    training: Mapping[str, Summary],
    served: Mapping[str, Summary],
    *,
    training_users: int,
    served_users: int,
    limits: Limits,
    unread: frozenset[str] = frozenset(),
    importance: Mapping[str, float] | None = None,
    troubles: Mapping[str, str] | None = None,
) -> list[FeatureSkew]:
    """Every feature of either side. troubles: feature → why what was served of it could not be summed up."""
    found = []
    for name in [*training, *(n for n in served if n not in training)]:
        n = served[name].n if name in served else 0
        weight = None if not importance else importance.get(name, 0.0)

        def said(verdict: Verdict, why: str, *measures: Measure) -> FeatureSkew:
            return FeatureSkew(name, verdict, n, served_users, why, measures, name not in unread, weight)  # noqa: B023

        if troubles and name in troubles:
            found.append(said("inconclusive", troubles[name]))
        elif name not in training:
            found.append(said("inconclusive", "training knew no such feature"))
        elif name not in served:
            found.append(said("inconclusive", "nothing was logged of this feature"))
        elif served_users < LEAST_USERS:
            found.append(said("inconclusive", f"{served_users} users are too few to say ({LEAST_USERS} at least)"))
        else:
            found.append(_one(name, training[name], served[name], training_users, served_users, limits, said))
    return found


def _one(  # type: ignore[no-untyped-def]
    name: str, training: Summary, served: Summary, training_users: int, served_users: int, limits: Limits, said
) -> FeatureSkew:
    if training.kind != served.kind:
        return said("inconclusive", f"training has {training.kind}s, serving logged {served.kind}s")
    before, now = training.missing_rate, served.missing_rate
    if before is None or now is None or training.n == 0:
        return said("inconclusive", "training kept no rows of this feature")
    measures = [_missing(before, now, training_users, served_users, limits)]
    why = ""
    if training.kind == "word":
        measures += _unmet(training, served, served_users, limits)
    elif training.mean is None or not training.sd:
        why = "it was constant in training: there is no deviation to measure a shift in"
    elif served.mean is None or served.sd is None:
        why = "no row that was served has a value of it"
    else:
        measures += _moments(training, served, training_users, served_users, limits)
    broken = [m.sentence() for m in measures if m.verdict == "breach"]
    unsure = [m.sentence() for m in measures if m.verdict == "inconclusive"]
    if broken:
        return said("breach", "; ".join(broken), *measures)
    if why:
        return said("inconclusive", why, *measures)
    if unsure:
        return said("inconclusive", "too few users to be sure: " + "; ".join(unsure), *measures)
    return said("ok", "", *measures)


def _moments(
    training: Summary, served: Summary, training_users: int, served_users: int, limits: Limits
) -> list[Measure]:
    assert training.mean is not None and training.sd and served.mean is not None and served.sd is not None  # noqa: S101, PT018
    ratio = served.sd / training.sd
    shift = (served.mean - training.mean) / training.sd
    mean_error = math.sqrt(max(ratio, 1e-9) ** 2 / served_users + 1 / max(training_users, 1))
    # The deviation of a sample of n has a relative error of 1/√(2(n − 1)), near enough whatever the distribution.
    log_error = math.sqrt(1 / (2 * max(served_users - 1, 1)) + 1 / (2 * max(training_users - 1, 1)))
    return [
        Measure("shift", shift, mean_error, limits.mean, _judged(abs(shift), mean_error, limits.mean)),
        Measure(
            "ratio",
            ratio,
            ratio * log_error,
            limits.deviation,
            _judged(abs(math.log(max(ratio, 1e-9))), log_error, -math.log(limits.deviation)),
        ),
    ]


def _missing(before: float, now: float, training_users: int, served_users: int, limits: Limits) -> Measure:
    error = math.sqrt(_spread(now, served_users) + _spread(before, training_users))
    gap = now - before
    return Measure("missing", gap, error, limits.missing, _judged(abs(gap), error, limits.missing))


def _unmet(training: Summary, served: Summary, served_users: int, limits: Limits) -> list[Measure]:
    """A word that training counted only together with others may have been met: then nothing is said."""
    total = sum(served.categories.values()) + served.other
    if not total or training.other or not training.categories:
        return []
    share = (sum(n for word, n in served.categories.items() if word not in training.categories) + served.other) / total
    error = math.sqrt(_spread(share, served_users))
    return [Measure("unmet", share, error, limits.missing, _judged(share, error, limits.missing))]


def _spread(rate: float, n: int) -> float:
    """Variance of a share of n; what was seen of none or of all is not taken for certain (Agresti and Coull, 1998)."""
    rate = (rate * n + 2) / (n + 4)
    return rate * (1 - rate) / (n + 4)


def _judged(distance: float, error: float, limit: float) -> Verdict:
    if distance - SURE * error > limit:
        return "breach"
    return "ok" if distance + SURE * error <= limit else "inconclusive"
