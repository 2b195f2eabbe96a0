"""Whether higher scores still mean more clicks in every slice: the score test of Cox's (1958) calibration slope.

Each row says (label − score) · (logit of the score − its mean); over a slice that is 0 on average while a score means
what it meant. A segment whose tastes changed clicks what it was not expected to and not what it was: the mean error and
the log loss may hardly move, this does.
"""

import numpy as np

from monitoring.drift.base import Columns, Detector, Engine, Finding, Floats
from monitoring.drift.detectors.cells import Cells, compare_cells, probabilities

LEAST_PROBABILITY = 1e-4


class SliceSlope(Detector):
    """effect: in standard deviations of what a row says."""

    name = "slice_slope"
    takes = ("scores", "labels", "slices")
    floor = 0.02

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        x, y = probabilities(reference, "reference"), probabilities(current, "current")
        centre = float(np.nanmean(_logit(x)))
        before = Cells(reference["slices"], (reference["labels"] - x) * (_logit(x) - centre))
        now = Cells(current["slices"], (current["labels"] - y) * (_logit(y) - centre))
        return compare_cells(before, now, "slice")


def _logit(scores: Floats) -> Floats:
    p = np.clip(scores, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return np.asarray(np.log(p) - np.log1p(-p))
