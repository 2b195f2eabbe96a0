"""A batch test on windows one after another, each at α = rows of the window / ert: the run time is then exact."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from monitoring.drift.base import Engine
from monitoring.drift.engines.scipy import Scipy
from monitoring.drift.online.base import Alarm, Takes, enough


class _Tumbling:
    window: ClassVar[int]
    reference_rows: ClassVar[int]  # drawn anew for each window, so that a lucky or unlucky draw does not last

    def __init__(self, reference: NDArray[Any], *, ert: float, seed: int) -> None:
        self._reference = enough(reference)
        self._engine: Engine = Scipy()
        self._rng = np.random.default_rng(seed)
        self.threshold = self.window / ert
        self._row = self._last = 0
        self._rows: list[Any] = []

    def p(self, reference: NDArray[Any], window: NDArray[Any]) -> float:
        raise NotImplementedError

    def update(self, row: Any) -> Alarm | None:
        self._row += 1
        self._rows.append(row)
        if len(self._rows) < self.window:
            return None
        drawn = self._rng.choice(len(self._reference), min(len(self._reference), self.reference_rows), replace=False)
        p = self.p(self._reference[drawn], np.asarray(self._rows, np.float64))
        self._rows = []
        if p > self.threshold:
            return None
        alarm = Alarm(self._row, self._row - self._last, p, self.threshold)
        self._last = self._row
        return alarm


class TumblingKs(_Tumbling):
    """Any change of a number's distribution, by Kolmogorov & Smirnov's test. statistic, threshold: p and its α."""

    takes: ClassVar[Takes] = "values"
    window = 250
    reference_rows = 20_000

    def p(self, reference: NDArray[Any], window: NDArray[Any]) -> float:
        return self._engine.ks(reference, window).p


class TumblingMmd(_Tumbling):
    """A change of a cloud of embeddings, by maximum mean discrepancy. p is never under 1/1001: `ert` up to 200,000."""

    takes: ClassVar[Takes] = "vectors"
    window = 200
    reference_rows = 500

    def p(self, reference: NDArray[Any], window: NDArray[Any]) -> float:
        return self._engine.mmd(reference, window, int(self._rng.integers(2**31))).p
