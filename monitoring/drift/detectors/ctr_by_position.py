"""Whether clicks changed at any place of the slate: two proportions a position, all positions as one."""

from monitoring.drift.base import Columns, Detector, Engine, Finding
from monitoring.drift.detectors.cells import Cells, compare_cells


class CtrByPosition(Detector):
    """effect: in standard deviations of a click: at a rate of 5 %, 0.02 is half a point."""

    name = "ctr_by_position"
    takes = ("positions", "labels")
    floor = 0.02

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        before, now = (Cells(side["positions"], side["labels"]) for side in (reference, current))
        return compare_cells(before, now, "position")
