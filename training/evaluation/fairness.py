"""Who is shown, and who is served: exposure and recall by group of items and of users, and their ratio. NumPy only.

Disparate impact is the least rate over the greatest; four fifths is the usual limit (EEOC, 29 CFR 1607.4, 1978).
Exposure is discounted by place and divided by merit, the wishes in the test window (Singh & Joachims, "Fairness of
Exposure in Rankings", KDD 2018). Every user has the same ten places, so a segment of users has no exposure of its own;
what can differ from one to the next is whose items it is shown.

Which group is the least and which the greatest is seen in the same data, so the interval of that pair alone, or of the
least over the greatest drawn anew in each resample, is too low: of eight equal groups two are always far apart. The
ratio is the least over all ordered pairs. So it is surely below a limit where one pair is, beyond the chance that any
of them is (Bonferroni), and surely above it where each pair is, which needs no correction (an intersection-union test:
Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 1982). A pair is asked with the
variance that it has if its ratio is the one asked about (Koopman, "Confidence intervals for the ratio of two binomial
proportions", Biometrics 1984): a group without a single hit has no variance of its own.

U users, L places, N items, G groups.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation import metrics
from training.evaluation.protocol import TestSet

K = 10
TAIL = 0.025  # on either side of one ratio's interval
ALPHA = 0.05  # that any ratio of a set is surely below by chance alone
STEPS = 1_000  # from a ratio of 0 to one of 1
FEW = 2.0  # hits: with fewer, a group's spread is mostly that of all


@dataclass(frozen=True, slots=True)
class Judged:
    """least_users: a group with fewer is left out. together: so many ratios are judged as one set."""

    least_users: int
    together: int = 1


@dataclass(frozen=True, slots=True)
class Impact:
    """rates: group → rate, groups that were left out have none. ratio: least over greatest; NaN with fewer than two
    groups. low, high: its 95 % interval, whichever groups are truly the least and the greatest; `high` is as high as
    the set that it is judged in asks for. n: users behind each group."""

    what: str
    rates: Mapping[str, float]
    n: Mapping[str, int]
    ratio: float
    low: float
    high: float
    least: str = ""
    greatest: str = ""

    def plain(self) -> dict[str, Any]:
        figures = {name: getattr(self, name) for name in ("ratio", "low", "high")}
        return {
            "what": self.what,
            "rates": dict(self.rates),
            "n": dict(self.n),
            **{name: float(value) if np.isfinite(value) else None for name, value in figures.items()},
            "least": self.least,
            "greatest": self.greatest,
        }


def impact(
    what: str,
    above: Mapping[str, NDArray[np.float64]],
    below: Mapping[str, NDArray[np.float64]],
    judged: Judged,
) -> Impact:
    """Ratio of the rates Σ above / Σ below of each group; both [U], a user with `below` 0 is not in the group."""
    n = {name: int((values > 0).sum()) for name, values in below.items()}
    names = [name for name in above if n[name] >= judged.least_users]
    rates = {name: float(above[name].sum() / below[name].sum()) for name in names}
    if len(names) < 2 or max(rates.values()) <= 0:
        return Impact(what, rates, n, float("nan"), float("nan"), float("nan"))
    least, greatest = min(names, key=lambda g: rates[g]), max(names, key=lambda g: rates[g])
    ratio = rates[least] / rates[greatest]
    tops, bottoms = (np.column_stack([side[name] for name in names]) for side in (above, below))
    low, high = _interval(tops, bottoms, judged.together)
    return Impact(what, rates, n, ratio, low, high, least, greatest)


def _interval(above: NDArray[np.float64], below: NDArray[np.float64], together: int) -> tuple[float, float]:
    """Of the least ratio of two groups: what no pair contradicts. above, below: [U, G].

    Users may be in both groups of a pair: what is alike in them is taken out. Variance of a rate: in proportion to it,
    as of counts, times the spread that the users of the group have.
    """
    hits, size = above.sum(axis=0), below.sum(axis=0)
    rates = hits / size
    by_user = above - rates * below
    shared = by_user.T @ by_user
    own = np.diag(shared)
    scale = np.sqrt(np.outer(own, own))
    alike = np.divide(shared, scale, out=np.zeros_like(shared), where=scale > 0)
    few = FEW * (above**2).sum() / above.sum()
    spread = (own + few * own.sum() / hits.sum()) / (hits + few)
    a, b = np.nonzero(~np.eye(len(rates), dtype=bool))
    ratios = np.linspace(0.0, 1.0, STEPS + 1)
    ratio = ratios[:, None]
    rate = (hits[a] + hits[b]) / (ratio * size[a] + size[b])  # of b, if that of a is `ratio` times it
    ours, theirs = spread[a] * ratio * rate / size[a], spread[b] * ratio**2 * rate / size[b]
    error = np.sqrt(np.maximum(ours + theirs - 2 * alike[a, b] * np.sqrt(ours * theirs), 1e-24))
    short = (ratio * rates[b] - rates[a]) / error
    seen = rates.min() / rates.max()
    one, any_ = NormalDist().inv_cdf(1 - TAIL), NormalDist().inv_cdf(1 - min(TAIL, ALPHA / together) / len(a))
    low = ratios[(ratios < seen) & (short < -one).all(axis=1)].max(initial=0.0)
    high = ratios[(ratios > seen) & (short > any_).any(axis=1)].min(initial=1.0)
    return float(low), float(high)


def exposure(
    slates: NDArray[np.int64], test: TestSet, groups: Mapping[str, NDArray[np.bool_]], judged: Judged
) -> Impact:
    """Discounted places that a group of items gets in the first 10, for each wish for one of them. groups: [N]."""
    above, below = {}, {}
    for name, mask in groups.items():
        above[name], below[name] = _places_and_wishes(slates, test, mask)
    return impact("exposure per wish, by group of creators", above, below, judged)


def recall_by_items(
    slates: NDArray[np.int64], test: TestSet, groups: Mapping[str, NDArray[np.bool_]], judged: Judged
) -> Impact:
    """Wishes for items of a group that the first 10 held / such wishes. groups: [N]."""
    found = _found(slates, test)
    owners = np.repeat(np.arange(len(test)), test.targets.counts)
    above, below = {}, {}
    for name, mask in groups.items():
        wanted = np.append(mask, False)[np.minimum(test.targets.items, len(mask))]
        above[name] = np.bincount(owners[wanted & found], minlength=len(test)).astype(np.float64)
        below[name] = np.bincount(owners[wanted], minlength=len(test)).astype(np.float64)
    return impact("recall@10, by group of creators", above, below, judged)


def recall_by_users(
    slates: NDArray[np.int64],
    test: TestSet,
    group: str,
    masks: Mapping[str, NDArray[np.bool_]],
    judged: Judged,
) -> Impact:
    """Mean recall@10 of the users of each segment. masks: [U]."""
    own = metrics.recall(metrics.hits(slates[:, :K], test.targets), test.targets.counts, K)
    above = {name: np.where(mask, own, 0.0) for name, mask in masks.items()}
    below = {name: mask.astype(np.float64) for name, mask in masks.items()}
    return impact(f"recall@10, by {group}", above, below, judged)


def exposure_by_users(
    slates: NDArray[np.int64],
    test: TestSet,
    group: str,
    masks: Mapping[str, NDArray[np.bool_]],
    items: NDArray[np.bool_],
    judged: Judged,
) -> Impact:
    """Discounted places that these items get in the first 10 of each segment, for each of its wishes for them: do
    small creators reach these people less than those? masks: [U]; items: [N], those of small creators."""
    places, wishes = _places_and_wishes(slates, test, items)
    above = {name: np.where(mask, places, 0.0) for name, mask in masks.items()}
    below = {name: np.where(mask, wishes, 0.0) for name, mask in masks.items()}
    what = f"exposure per wish of small creators, by {group}"
    return impact(what, above, below, judged)


def _places_and_wishes(
    slates: NDArray[np.int64], test: TestSet, items: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each user, [U]: discounted places that some items [N] have in the first 10, and wishes for them."""
    discount = 1 / np.log2(np.arange(2, K + 2))
    head = slates[:, :K]
    wide = np.append(items, False)  # an item that the catalogue does not have is in no group
    shown = wide[np.where(head >= 0, head, -1)]
    owners = np.repeat(np.arange(len(test)), test.targets.counts)
    wanted = wide[np.minimum(test.targets.items, len(items))]
    return (
        np.asarray(shown @ discount[: shown.shape[1]], np.float64),
        np.bincount(owners[wanted], minlength=len(test)).astype(np.float64),
    )


def _found(slates: NDArray[np.int64], test: TestSet) -> NDArray[np.bool_]:
    """bool [T]: is the target in its user's first 10."""
    span = 1 + max(int(slates.max(initial=0)), int(test.targets.items.max(initial=0)))
    owners = np.repeat(np.arange(len(test)), test.targets.counts)
    head = slates[:, :K]
    shown = (np.arange(len(test))[:, None] * span + head)[head >= 0]
    return np.isin(owners * span + test.targets.items, shown)
