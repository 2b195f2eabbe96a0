"""Static popularity of items: decayed counts of positive events at several half-lives. N items, E events.

One definition for training (as of a cut), for the retrieval bundle (`item_features.npy`) and for materialised item
snapshots. The ranker reads the columns by these names.
"""

import numpy as np
from numpy.typing import NDArray

DAY_US = 86_400_000_000
HALF_LIVES_D = (1, 3, 7, 14, 30, 90)
POPULARITY_COLUMNS = (*(f"item_popularity_hl{days}d" for days in HALF_LIVES_D), "item_popularity_all")
IDLE_COLUMN = "item_days_since_last_positive"
NEVER_DAYS = 3650.0


def popularity_columns(
    items: NDArray[np.int32],
    timestamps_us: NDArray[np.int64],
    n_items: int,
    until_us: int,
    weights: NDArray[np.float64] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Columns float32 [N] over the positive events (`items`: catalogue rows, [E]) before `until_us`.

    `item_popularity_hl{d}d`: Σ weight × 2^(−age / d days); `item_popularity_all`: Σ weight;
    `item_days_since_last_positive`: days, `NEVER_DAYS` for an item with no positive event.
    """
    known = (timestamps_us < until_us) & (items >= 0)
    rows = items[known]
    age_d = (until_us - timestamps_us[known]) / DAY_US
    weight = np.ones(len(rows)) if weights is None else weights[known].astype(np.float64)
    columns = {
        name: np.bincount(rows, weight * np.exp2(-age_d / days), minlength=n_items).astype(np.float32)
        for name, days in zip(POPULARITY_COLUMNS, HALF_LIVES_D, strict=False)
    }
    columns["item_popularity_all"] = np.bincount(rows, weight, minlength=n_items).astype(np.float32)
    idle = np.full(n_items, NEVER_DAYS)
    np.minimum.at(idle, rows, age_d)
    columns[IDLE_COLUMN] = idle.astype(np.float32)
    return columns
