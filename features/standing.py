"""An item's standing within its category: what content affinity multiplies a user's share of the category with.

N items with a standing, M that came later. One definition for training, which knows what an item has gathered, and for
serving, where new items come in.
"""

import numpy as np
from numpy.typing import NDArray

DAY_US = 86_400_000_000
FRESH_HALF_LIFE_D = 14.0
# A new item enters a category as its so-manieth best; in a small category, in the middle.
ENTRY_PLACE = 50


def entry_standing(
    standing: NDArray[np.float32], category: NDArray[np.int32], published_us: NDArray[np.int64], now_us: int
) -> NDArray[np.float32]:
    """float32 [N + M]: `standing` [N], and for the M items after it what lets them be found at first.

    That of the 50th best of the category, or of the middle one of a category with fewer than 100; in one without items,
    the median of all. It halves every 14 days after publication, as the boost of a fresh item does in training.
    category: int32 [N + M]; published_us: int64 [N + M].
    """
    n = len(standing)
    out = np.concatenate([standing, np.zeros(len(category) - n, np.float32)])
    for wanted in np.unique(category[n:]):
        known = standing[category[:n] == wanted]
        if len(known):
            place = min(ENTRY_PLACE, (len(known) + 1) // 2)
            entry = -np.partition(-known, place - 1)[place - 1]
        else:
            entry = np.median(standing) if n else np.float32(1)
        rows = n + np.flatnonzero(category[n:] == wanted)
        age_d = np.maximum(now_us - published_us[rows], 0) / DAY_US
        out[rows] = entry * np.exp2(-age_d / FRESH_HALF_LIFE_D)
    return out
