"""Runs in turn and what can be said of their ratio.

Two runs of one thing differ here by more than 10 %, and by drift of the machine. So two things are compared within a
round, back to back and in turn first, and the figure is the median over the rounds of the ratio within each.
"""

import statistics
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from scipy.stats import binom, bootstrap

T = TypeVar("T")


def in_turn(things: Sequence[T], round_: int) -> list[T]:
    """Forwards in even rounds, backwards in odd ones."""
    return list(things) if round_ % 2 == 0 else list(things)[::-1]


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, and an interval for it of at least 95 % from order statistics (sign test), whatever the distribution.

    With fewer than six values no two of them enclose it so surely: then the interval is that from lowest to highest.
    """
    ordered, n = sorted(values), len(values)
    # The largest c with P(Binomial(n, 1/2) < c) ≤ 2.5 %: the c-th lowest and the c-th highest.
    cut = max(int(binom.ppf(0.025, n, 0.5)), 1) - 1
    return {
        "median": round(median(ordered), 4),
        "low": round(ordered[cut], 4),
        "high": round(ordered[n - 1 - cut], 4),
        "n": n,
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """ours / theirs, pair by pair; pairs without a figure are left out.

    Raises:
        ValueError: no pair is left.
    """
    values = [a / b for a, b in zip(ours, theirs, strict=True) if b]
    if not values:
        raise ValueError("no pair has a figure")
    found = spread(values)
    if len(values) > 2:
        made = bootstrap(
            (np.asarray(values),), np.median, vectorized=True, method="percentile", n_resamples=2000, random_state=1
        ).confidence_interval
        found |= {"bootstrap_low": round(float(made.low), 4), "bootstrap_high": round(float(made.high), 4)}
    return found
