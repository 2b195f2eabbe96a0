"""The best n of an array of scores."""

import numpy as np
from numpy.typing import NDArray


def top(scores: NDArray[np.float32], n: int) -> NDArray[np.int32]:
    """Positions of the n highest scores, best first; ties in order of position. -inf and NaN are never among them."""
    n = min(n, len(scores))
    if n <= 0:
        return np.empty(0, np.int32)
    if n < len(scores):
        floor = np.partition(scores, len(scores) - n)[len(scores) - n]  # NaN sorts last: seen as the highest
        if np.isnan(floor) or np.isneginf(floor):
            at = np.flatnonzero(scores > -np.inf)
        else:
            at = np.flatnonzero(scores >= floor)
    else:
        at = np.flatnonzero(scores > -np.inf)
    best = np.argsort(-scores[at], kind="stable")[:n]
    return at[best].astype(np.int32)
