"""Who is shown, and who is served: exposure and recall by group of items and of users, and their ratio. NumPy only.

Disparate impact is the least rate over the greatest; four fifths is the usual limit (EEOC, 29 CFR 1607.4, 1978).
Exposure is discounted by place and divided by merit, the wishes in the test window (Singh & Joachims, "Fairness of
Exposure in Rankings", KDD 2018). Every user has the same ten places, so a segment of users has no exposure of its own;
what can differ from one to the next is whose items it is shown. Intervals: bootstrap over users. U users, L places, N
items, G groups.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation import metrics
from training.evaluation.protocol import TestSet

K = 10
RESAMPLES = 300
MOST_USERS = 5_000


@dataclass(frozen=True, slots=True)
class Impact:
    """rates: group → rate, groups that were left out have none. ratio: least over greatest, with its 95 % interval;
    NaN with fewer than two groups. n: users behind each group."""

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
    *,
    least_users: int,
    seed: int,
) -> Impact:
    """Ratio of the rates Σ above / Σ below of each group; both [U], a user with `below` 0 is not in the group."""
    n = {name: int((values > 0).sum()) for name, values in below.items()}
    names = [name for name in above if n[name] >= least_users]
    rates = {name: float(above[name].sum() / below[name].sum()) for name in names}
    if len(names) < 2 or max(rates.values()) <= 0:
        return Impact(what, rates, n, float("nan"), float("nan"), float("nan"))
    tops = np.column_stack([above[name] for name in names])
    bottoms = np.column_stack([below[name] for name in names])
    random = np.random.default_rng(seed)
    users = len(tops)
    some = random.choice(users, MOST_USERS, replace=False) if users > MOST_USERS else np.arange(users)
    drawn = random.multinomial(len(some), np.full(len(some), 1 / len(some)), size=RESAMPLES).astype(np.float64)
    resampled = (drawn @ tops[some]) / np.maximum(drawn @ bottoms[some], 1e-12)
    ratios = resampled.min(axis=1) / np.maximum(resampled.max(axis=1), 1e-12)
    low, high = np.quantile(ratios, [0.025, 0.975])
    least, greatest = min(names, key=lambda g: rates[g]), max(names, key=lambda g: rates[g])
    return Impact(what, rates, n, rates[least] / rates[greatest], float(low), float(high), least, greatest)


def exposure(
    slates: NDArray[np.int64], test: TestSet, groups: Mapping[str, NDArray[np.bool_]], *, least_users: int, seed: int
) -> Impact:
    """Discounted places that a group of items gets in the first 10, for each wish for one of them. groups: [N]."""
    above, below = {}, {}
    for name, mask in groups.items():
        above[name], below[name] = _places_and_wishes(slates, test, mask)
    return impact("exposure per wish, by group of creators", above, below, least_users=least_users, seed=seed)


def recall_by_items(
    slates: NDArray[np.int64], test: TestSet, groups: Mapping[str, NDArray[np.bool_]], *, least_users: int, seed: int
) -> Impact:
    """Wishes for items of a group that the first 10 held / such wishes. groups: [N]."""
    found = _found(slates, test)
    owners = np.repeat(np.arange(len(test)), test.targets.counts)
    above, below = {}, {}
    for name, mask in groups.items():
        wanted = np.append(mask, False)[np.minimum(test.targets.items, len(mask))]
        above[name] = np.bincount(owners[wanted & found], minlength=len(test)).astype(np.float64)
        below[name] = np.bincount(owners[wanted], minlength=len(test)).astype(np.float64)
    return impact("recall@10, by group of creators", above, below, least_users=least_users, seed=seed)


def recall_by_users(
    slates: NDArray[np.int64],
    test: TestSet,
    group: str,
    masks: Mapping[str, NDArray[np.bool_]],
    *,
    least_users: int,
    seed: int,
) -> Impact:
    """Mean recall@10 of the users of each segment. masks: [U]."""
    own = metrics.recall(metrics.hits(slates[:, :K], test.targets), test.targets.counts, K)
    above = {name: np.where(mask, own, 0.0) for name, mask in masks.items()}
    below = {name: mask.astype(np.float64) for name, mask in masks.items()}
    return impact(f"recall@10, by {group}", above, below, least_users=least_users, seed=seed)


def exposure_by_users(
    slates: NDArray[np.int64],
    test: TestSet,
    group: str,
    masks: Mapping[str, NDArray[np.bool_]],
    items: NDArray[np.bool_],
    *,
    least_users: int,
    seed: int,
) -> Impact:
    """Discounted places that these items get in the first 10 of each segment, for each of its wishes for them: do
    small creators reach these people less than those? masks: [U]; items: [N], those of small creators."""
    places, wishes = _places_and_wishes(slates, test, items)
    above = {name: np.where(mask, places, 0.0) for name, mask in masks.items()}
    below = {name: np.where(mask, wishes, 0.0) for name, mask in masks.items()}
    what = f"exposure per wish of small creators, by {group}"
    return impact(what, above, below, least_users=least_users, seed=seed)


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
