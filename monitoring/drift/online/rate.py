"""A rate that moves (clicks, missing values): an e-detector (Shin, Ramdas & Rinaldo 2024), valid at any row.

A Shiryaev & Roberts sum of likelihood ratios, mixed over rates that it might have gone to. While the rate is the
reference's, each sum grows by 1 a row on average, so that the expected run time is at least the threshold, `ert`,
without a simulation.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from monitoring.drift.online.base import Alarm, Takes, enough

ODDS = (0.33, 0.5, 0.67, 0.8, 1.25, 1.5, 2.0, 3.0)  # of the odds, to where they might have gone


class Rate:
    takes: ClassVar[Takes] = "hits"

    def __init__(self, reference: NDArray[Any], *, ert: float, seed: int) -> None:
        rate = float(enough(reference.astype(np.bool_)).mean())
        odds = np.array(ODDS) * rate / (1 - rate)
        gone = odds / (1 + odds)
        self._hit, self._miss = gone / rate, (1 - gone) / (1 - rate)
        self.threshold = float(ert)
        self._row = 0
        self._clear()

    def _clear(self) -> None:
        self._sums = np.zeros(len(ODDS))
        self._rows = 0

    def update(self, row: Any) -> Alarm | None:
        self._row += 1
        self._rows += 1
        self._sums = (self._sums + 1) * (self._hit if row else self._miss)
        mixed = float(self._sums.mean())
        if mixed < self.threshold:
            return None
        alarm = Alarm(self._row, self._rows, mixed, self.threshold)
        self._clear()
        return alarm
