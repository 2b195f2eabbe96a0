"""Named groups of users. A slice is a boolean mask over the users of a test set; they may overlap."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_VALUES = 8  # of one attribute: the most frequent; the others are one slice
MIN_USERS = 2


def activity(met: NDArray[np.integer[Any]]) -> dict[str, NDArray[np.bool_]]:
    """By the number of items that a user met in training."""
    return {
        "activity=cold (<5)": met < 5,
        "activity=some (5–19)": (met >= 5) & (met < 20),
        "activity=regular (20–99)": (met >= 20) & (met < 100),
        "activity=heavy (100+)": met >= 100,
    }


def attribute(name: str, values: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """By value: the most frequent ones each, the rest together, "" as unknown."""
    array = np.asarray([v or "unknown" for v in values], dtype=object)
    found, counts = np.unique(array.astype(str), return_counts=True)
    first = found[np.argsort(-counts, kind="stable")][:MAX_VALUES]
    masks = {f"{name}={value}": array == value for value in first}
    rest = ~np.isin(array.astype(str), first)
    return masks | ({f"{name}=other": rest} if rest.any() else {})


def named(met: NDArray[np.integer[Any]], attributes: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.bool_]]:
    """All slices with at least `MIN_USERS` users."""
    masks = activity(met)
    for name, values in attributes.items():
        masks |= attribute(name, values)
    return {name: np.asarray(mask, bool) for name, mask in masks.items() if int(np.sum(mask)) >= MIN_USERS}
