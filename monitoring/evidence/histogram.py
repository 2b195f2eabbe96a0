"""Latencies of each arm, in bins that are 2 % wide: quantiles, and how many were slower than a bound."""

import numpy as np

from monitoring.evidence.columns import Floats
from monitoring.evidence.index import Ints

LEAST_MS, WIDTH, BINS = 0.1, 1.02, 680  # up to 68 s


class Latencies:
    """`edges[i]` is the upper end of bin i in ms; what never came is in the last bin, which has no end."""

    edges: Floats = np.append(LEAST_MS * WIDTH ** np.arange(BINS - 1), np.inf)

    def __init__(self, arms: int) -> None:
        self._counts = np.zeros((arms, BINS), np.int64)

    def add(self, arm: Ints, ms: Floats) -> None:
        bins = np.searchsorted(self.edges, ms)
        flat = np.bincount(arm * BINS + bins, minlength=self._counts.size)
        self._counts += flat.reshape(self._counts.shape)

    def count(self, arm: int) -> int:
        return int(self._counts[arm].sum())

    def slower(self, arm: int) -> Ints:
        """For each edge: how many were slower."""
        counts = self._counts[arm]
        found: Ints = counts.sum() - np.cumsum(counts)
        return found

    def quantile(self, arm: int, share: float) -> float:
        """Upper end of the bin that holds it; NaN without any."""
        counts = self._counts[arm]
        total = counts.sum()
        if not total:
            return float("nan")
        return float(self.edges[np.searchsorted(np.cumsum(counts), share * total)])
