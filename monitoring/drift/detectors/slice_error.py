"""Whether the ranker errs more in any slice than it did: log loss slice by slice, all slices as one.

Finds a segment whose preferences changed although inputs, scores and the overall rate of clicks are as they were.
"""

import numpy as np

from monitoring.drift.base import Columns, Detector, Engine, Finding, Floats
from monitoring.drift.detectors.cells import Cells, compare_cells, probabilities

LEAST_PROBABILITY = 1e-6


class SliceError(Detector):
    """effect: in standard deviations of a row's log loss."""

    name = "slice_error"
    takes = ("scores", "labels", "slices")
    floor = 0.02

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        before = Cells(reference["slices"], log_loss(reference, "reference"))
        now = Cells(current["slices"], log_loss(current, "current"))
        return compare_cells(before, now, "slice")


def log_loss(side: Columns, name: str) -> Floats:
    """Of each row; NaN where label or score is unknown."""
    scores, labels = probabilities(side, name), side["labels"]
    p = np.clip(scores, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return np.asarray(-(labels * np.log(p) + (1 - labels) * np.log1p(-p)), np.float64)
