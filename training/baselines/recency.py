"""Popularity in which an event counts half as much every half-life."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

DAY_US = 86_400_000_000
HALF_LIFE_D = 14.0


def fit(
    items: NDArray[np.integer[Any]],
    timestamps_us: NDArray[np.int64],
    n_items: int,
    until_us: int,
    half_life_d: float = HALF_LIFE_D,
) -> NDArray[np.float64]:
    """Score float64 [N]: Σ 2^(−age / half-life) over the positive events. items, timestamps_us: [E]."""
    weight = np.exp2(-(until_us - timestamps_us) / DAY_US / half_life_d)
    return np.bincount(items, weight, minlength=n_items).astype(np.float64)
