"""Whether what the ranker scores alike is still clicked alike: two proportions a score bucket, all buckets as one."""

from monitoring.drift.base import Columns, Detector, Engine, Finding
from monitoring.drift.detectors.cells import Cells, buckets, compare_cells


class CtrByScore(Detector):
    """effect: in standard deviations of a click. Concept drift: the inputs may be as they were."""

    name = "ctr_by_score"
    takes = ("scores", "labels")
    floor = 0.02

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        of = buckets(reference["scores"], current["scores"])
        before, now = (Cells(b, side["labels"]) for b, side in zip(of, (reference, current), strict=True))
        return compare_cells(before, now, "score bucket")
