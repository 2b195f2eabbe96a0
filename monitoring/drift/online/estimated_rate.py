"""A rate that moves away from one that is only known from a sample: `rate`, with the sample's own error allowed for.

Both ends of the exact 99.9 % interval (Clopper & Pearson 1934) of the reference's rate are held for the rate: a rise is
one above the upper end, a fall one below the lower. Likelihood ratios are monotone, so that each sum grows by at most 1
a row on average wherever in the interval the rate is, and the expected run time is still at least `ert`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from monitoring.drift.online.base import enough
from monitoring.drift.online.rate import ODDS, Rate

SURE = 0.999


class EstimatedRate(Rate):
    def __init__(self, reference: NDArray[Any], *, ert: float, seed: int) -> None:
        sample = enough(reference.astype(np.bool_))
        n, hits = len(sample), int(sample.sum())
        low = float(beta.ppf((1 - SURE) / 2, hits, n - hits + 1))
        high = float(beta.ppf((1 + SURE) / 2, hits + 1, n - hits))
        factors = np.array(ODDS)
        rate = np.where(factors > 1, high, low)
        odds = factors * rate / (1 - rate)
        gone = odds / (1 + odds)
        self._hit, self._miss = gone / rate, (1 - gone) / (1 - rate)
        self.threshold = float(ert)
        self._row = 0
        self._clear()
