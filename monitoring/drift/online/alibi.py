"""alibi-detect's online detectors behind the same interface; their thresholds are simulated when they are made.

References of numbers and vectors are drawn down to a few hundred rows: the simulations hold squares of them.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from monitoring.drift.engines.alibi import one_thread
from monitoring.drift.online.base import Alarm, Takes, enough

WINDOWS = (25, 100)


class _Alibi:
    reference_rows: ClassVar[int] = 300
    dtype: ClassVar[Any] = np.float64

    def __init__(self, reference: NDArray[Any], *, ert: float, seed: int) -> None:
        reference = enough(reference)
        drawn = np.random.default_rng(seed).permutation(len(reference))[: self.reference_rows]
        with one_thread(seed):
            self._detectors = [make() for make in self.made(reference[drawn], ert)]
        self._row = self._rows = 0

    def made(self, reference: NDArray[Any], ert: float) -> list[Callable[[], Any]]:
        raise NotImplementedError

    def asked(self, detector: Any, row: NDArray[Any]) -> Any:
        return detector.predict(row)

    def update(self, row: Any) -> Alarm | None:
        self._row += 1
        self._rows += 1
        alarm = None
        for detector in self._detectors:
            found = self.asked(detector, np.atleast_1d(np.asarray(row, self.dtype)))["data"]
            if found["is_drift"] and alarm is None:
                statistic, bar = np.asarray(found["test_stat"]), np.asarray(found["threshold"])
                alarm = Alarm(self._row, self._rows, float(np.nanmax(statistic)), float(np.nanmax(bar)))
        if alarm is not None:
            for detector in self._detectors:
                detector.reset_state()
            self._rows = 0
        return alarm


class AlibiCvm(_Alibi):
    """Any change of a number's distribution, over windows of 25 and 100 rows (Ross & Adams 2012)."""

    takes: ClassVar[Takes] = "values"

    def made(self, reference: NDArray[Any], ert: float) -> list[Callable[[], Any]]:
        from alibi_detect.cd import CVMDriftOnline

        return [
            lambda: CVMDriftOnline(
                reference[:, None], ert, list(WINDOWS), n_bootstraps=_bootstraps(ert), batch_size=16, verbose=False
            )
        ]


class AlibiFet(_Alibi):
    """A rate that moves, up or down: two of its one-sided detectors, each at twice the run time (Ross et al. 2012)."""

    takes: ClassVar[Takes] = "hits"
    reference_rows = 2_000
    dtype: ClassVar[Any] = np.bool_

    def made(self, reference: NDArray[Any], ert: float) -> list[Callable[[], Any]]:
        from alibi_detect.cd import FETDriftOnline

        def of(alternative: str) -> Callable[[], Any]:
            return lambda: FETDriftOnline(
                reference[:, None].astype(np.bool_),
                2 * ert,
                list(WINDOWS),
                n_bootstraps=_bootstraps(2 * ert),
                alternative=alternative,
                verbose=False,
            )

        return [of("greater"), of("less")]


class AlibiMmd(_Alibi):
    """A change of a cloud of embeddings, over a window of 25 rows (Cobb et al. 2022)."""

    takes: ClassVar[Takes] = "vectors"
    dtype: ClassVar[Any] = np.float32

    def made(self, reference: NDArray[Any], ert: float) -> list[Callable[[], Any]]:
        from alibi_detect.cd import MMDDriftOnline

        return [
            lambda: MMDDriftOnline(
                reference.astype(np.float32),
                ert,
                WINDOWS[0],
                n_bootstraps=_bootstraps(ert),
                backend="pytorch",
                device="cpu",
                verbose=False,
            )
        ]

    def asked(self, detector: Any, row: NDArray[Any]) -> Any:
        with one_thread():  # two threads are slower, by far
            return detector.predict(row)


def _bootstraps(ert: float) -> int:
    """Streams simulated: `ert` of them must still run when thresholds stop changing, or alibi-detect refuses."""
    return math.ceil(1.5 * ert * math.exp(2 * WINDOWS[-1] / ert))
