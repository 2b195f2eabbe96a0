"""The best n of an array of scores."""

import numpy as np
from numpy.typing import NDArray


def top(scores: NDArray[np.float32], n: int) -> NDArray[np.int32]:
    """Positions of the n highest scores, best first; ties in order of position. -inf and NaN are never among them."""
    n = min(n, len(scores))
    if n <= 0:
        return np.empty(0, np.int32)
    cost = -scores  # NaN sorts last, so it costs most
    limit = np.partition(cost, n - 1)[n - 1] if n < len(scores) else np.inf
    at = np.flatnonzero(cost <= limit if limit < np.inf else cost < np.inf)
    best = np.argsort(cost[at], kind="stable")[:n]
    return at[best].astype(np.int32)
