"""Whether the ranker's probabilities are as true as they were: label − score, bucket by bucket."""

import numpy as np

from monitoring.drift.base import Columns, Detector, Engine, Finding
from monitoring.drift.detectors.cells import Cells, buckets, compare_cells, probabilities


class Calibration(Detector):
    """effect: in standard deviations of label − score. Says what changed, not whether it was right before."""

    name = "calibration"
    takes = ("scores", "labels")
    floor = 0.02

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        probabilities(reference, "reference")
        probabilities(current, "current")
        of = buckets(reference["scores"], current["scores"])
        before, now = (
            Cells(b, side["labels"] - side["scores"]) for b, side in zip(of, (reference, current), strict=True)
        )
        found = compare_cells(before, now, "score bucket")
        errors = {
            name: float(np.nanmean(side["labels"] - side["scores"]))
            for name, side in (("reference", reference), ("current", current))
        }
        return Finding(found.statistic, found.p, found.effect, {**found.details, "label_minus_score": errors}, found.n)
