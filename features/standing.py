"""An item's standing within its category: what content affinity multiplies a user's share of the category with.

N items with a standing, M that came later. One definition for training, which knows what an item has gathered, and for
serving, where new items come in.
"""

import numpy as np
from numpy.typing import NDArray

DAY_US = 86_400_000_000
FRESH_HALF_LIFE_D = 14.0


def entry_standing(
    standing: NDArray[np.float32], category: NDArray[np.int32], published_us: NDArray[np.int64], now_us: int
) -> NDArray[np.float32]:
    """float32 [N + M]: `standing` [N], and for the M items after it what lets them be found at first.

    The newest of a category stands beside its best item, the second newest beside its second best, and so on: a new
    item is found by whoever is shown its category, and a thousand new ones do not fill it. In a category without items:
    the median of all. It halves every 14 days after publication, as the boost of a fresh item does in training.
    category: int32 [N + M]; published_us: int64 [N + M].
    """
    n = len(standing)
    out = np.concatenate([standing, np.zeros(len(category) - n, np.float32)])
    newest_first = n + np.argsort(-published_us[n:], kind="stable")
    for wanted in np.unique(category[n:]):
        rows = newest_first[category[newest_first] == wanted]
        known = standing[category[:n] == wanted]
        best = -np.sort(-known) if len(known) else np.array([np.median(standing) if n else 1.0], np.float32)
        age_d = np.maximum(now_us - published_us[rows], 0) / DAY_US
        out[rows] = best[np.minimum(np.arange(len(rows)), len(best) - 1)] * np.exp2(-age_d / FRESH_HALF_LIFE_D)
    return out
