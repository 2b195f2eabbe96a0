"""Named groups of users and of items. A slice is a boolean mask, `group=value`; slices may overlap and may be empty."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_VALUES = 8  # of one attribute: the most frequent; the others are one slice
RARE = 0.01  # of the users: a value that fewer have is in the rare cohort
HIGH_VALUE = 0.95  # quantile of spend from which on a spender is of high value
HEAD, TAIL = 0.5, 0.9  # of all positive events, from the most popular item on

Masks = dict[str, NDArray[np.bool_]]


def activity(met: NDArray[np.integer[Any]]) -> Masks:
    """By the number of items that a user met in training."""
    return {
        "activity=cold (<5)": met < 5,
        "activity=some (5–19)": (met >= 5) & (met < 20),
        "activity=regular (20–99)": (met >= 20) & (met < 100),
        "activity=heavy (100+)": met >= 100,
    }


def attribute(name: str, values: Sequence[str]) -> Masks:
    """By value: the most frequent ones each, the rest together, "" as unknown."""
    array = np.asarray([v or "unknown" for v in values], dtype=object)
    found, counts = np.unique(array.astype(str), return_counts=True)
    first = found[np.argsort(-counts, kind="stable")][:MAX_VALUES]
    masks = {f"{name}={value}": array == value for value in first}
    rest = ~np.isin(array.astype(str), first)
    return masks | ({f"{name}=other": rest} if rest.any() else {})


def bands(group: str, days: NDArray[np.floating[Any]], edges: Sequence[float]) -> Masks:
    """By a time in days: below the first edge, between two, from the last on."""
    lows = (-np.inf, *edges)
    names = [
        f"<{edges[0]:g} d",
        *(f"{a:g}–{b:g} d" for a, b in pairwise(edges)),
        f"{edges[-1]:g}+ d",
    ]
    return {
        f"{group}={name}": (days >= low) & (days < high)
        for name, low, high in zip(names, lows, (*edges, np.inf), strict=True)
    }


def value_bands(spend: NDArray[np.floating[Any]], of_all: NDArray[np.floating[Any]]) -> Masks:
    """By what a user has spent: nothing, and thirds of the spenders among all users of training; the top twentieth of
    them is a cohort of its own. Empty where nobody spent anything that is known."""
    spenders = of_all[of_all > 0]
    if not len(spenders):
        return {}
    low, high, top = np.quantile(spenders, [1 / 3, 2 / 3, HIGH_VALUE])
    return {
        "value=none": spend <= 0,
        "value=low": (spend > 0) & (spend <= low),
        "value=middle": (spend > low) & (spend <= high),
        "value=high": spend > high,
        "cohort=high value": spend >= top,
    }


def rare(name: str, values: Sequence[str], of_all: Sequence[str]) -> Masks:
    """Users whose value few users of training have. Empty where no value is rare."""
    found, counts = np.unique(np.asarray(of_all, dtype=np.str_), return_counts=True)
    few = set(found[(counts < RARE * max(len(of_all), 1)) & (found != "")].tolist())
    return {f"cohort=rare {name}": np.array([value in few for value in values], bool)} if few else {}


def absent(name: str, values: Sequence[str], of_all: Sequence[str]) -> Masks:
    """Values that users of training have and nobody in the test: slices of nobody. The most frequent ones."""
    found, counts = np.unique(np.asarray([v for v in of_all if v], dtype=np.str_), return_counts=True)
    first = found[np.argsort(-counts, kind="stable")][:MAX_VALUES]
    there = set(values)
    return {f"{name}={value}": np.zeros(len(values), bool) for value in first.tolist() if value not in there}


def item_popularity(counts: NDArray[np.integer[Any]]) -> Masks:
    """Over items, by positive events in training: the head makes half of them, the tail the last tenth."""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    share = np.empty(len(counts))
    share[order] = before / max(int(counts.sum()), 1)
    return {
        "item_popularity=head": (counts > 0) & (share < HEAD),
        "item_popularity=middle": (counts > 0) & (share >= HEAD) & (share < TAIL),
        "item_popularity=tail": (counts > 0) & (share >= TAIL),
        "item=cold (no event)": counts == 0,
    }
