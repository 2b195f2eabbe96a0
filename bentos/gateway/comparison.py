"""A shadow's slate beside the one that was served."""

import math
from bisect import bisect_right
from collections.abc import Sequence

from contracts.attempts import Compared
from contracts.http import RecommendedItem

LEAST = 3  # common items; a correlation of fewer says nothing


def compare(shadow: Sequence[RecommendedItem], served: Sequence[RecommendedItem], ms_served: float) -> Compared:
    """Jaccard index of the items; Spearman's correlation of the scores of the common ones; distance of all scores."""
    ours = {item.item_id: item.score for item in shadow}
    theirs = {item.item_id: item.score for item in served}
    common = [i for i in ours if i in theirs]
    union = len(ours) + len(theirs) - len(common)
    return Compared(
        overlap=len(common) / union if union else 1.0,
        common=len(common),
        correlation=spearman([ours[i] for i in common], [theirs[i] for i in common]),
        ms_served=ms_served,
        shift=distance(list(ours.values()), list(theirs.values())),
    )


def distance(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Kolmogorov-Smirnov: the greatest difference of the two distribution functions; None where one has no values."""
    if not x or not y:
        return None
    a, b = sorted(x), sorted(y)
    return max(abs(bisect_right(a, v) / len(a) - bisect_right(b, v) / len(b)) for v in (*a, *b))


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson's correlation of average ranks; None below `LEAST` pairs, or where one side is constant."""
    if len(x) < LEAST:
        return None
    a, b = _ranks(x), _ranks(y)
    middle = (len(x) + 1) / 2
    covariance = sum((p - middle) * (q - middle) for p, q in zip(a, b, strict=True))
    spread = math.sqrt(sum((p - middle) ** 2 for p in a) * sum((q - middle) ** 2 for q in b))
    return max(-1.0, min(1.0, covariance / spread)) if spread else None


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values share the mean of their places."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end + 1 < len(order) and values[order[end + 1]] == values[order[at]]:
            end += 1
        for place in order[at : end + 1]:
            ranks[place] = (at + end) / 2 + 1
        at = end + 1
    return ranks
