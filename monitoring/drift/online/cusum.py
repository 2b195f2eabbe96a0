"""A number whose level moves: two cumulative sums (Page 1954) of normal scores, whatever the number's distribution."""

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

from monitoring.drift.online.base import Alarm, Takes, enough

WORTH = 0.2  # standard deviations: the shift that it is sharpest at


class Cusum:
    """A row's score is the normal quantile of its rank in the reference, ties drawn at random: a standard normal while
    nothing changes. The threshold for the expected run time is Siegmund's (1985) formula, each side twice `ert`.
    """

    takes: ClassVar[Takes] = "values"

    def __init__(self, reference: NDArray[Any], *, ert: float, seed: int) -> None:
        self._sorted = np.sort(enough(reference))
        self._rng = np.random.default_rng(seed)
        self.threshold = threshold(ert)
        self._row = 0
        self._clear()

    def _clear(self) -> None:
        self._up = self._down = 0.0
        self._rows = 0

    def update(self, row: Any) -> Alarm | None:
        self._row += 1
        self._rows += 1
        below = int(np.searchsorted(self._sorted, row, "left"))
        upto = int(np.searchsorted(self._sorted, row, "right"))
        rank = (below + (upto - below + 1) * self._rng.random()) / (len(self._sorted) + 1)
        score = float(ndtri(rank))
        self._up = max(0.0, self._up + score - WORTH / 2)
        self._down = max(0.0, self._down - score - WORTH / 2)
        highest = max(self._up, self._down)
        if highest < self.threshold:
            return None
        alarm = Alarm(self._row, self._rows, highest, self.threshold)
        self._clear()
        return alarm


def threshold(ert: float) -> float:
    """Of two-sided sums with slack k = WORTH / 2: 2 ert = (exp(2 k b) − 2 k b − 1) / (2 k²) with b = h + 1.166."""
    k = WORTH / 2

    def over(b: float) -> float:
        return (math.expm1(2 * k * b) - 2 * k * b) / (2 * k * k) - 2 * ert

    return max(float(brentq(over, 0.0, 1_000.0)) - 1.166, 0.5)
