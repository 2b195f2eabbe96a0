"""Values below all or above all of the reference's: exceedances (Rosenbaum 1954), exact without assumptions."""

import math

from monitoring.drift.base import Columns, Detector, Engine, Finding, known


class OutOfRange(Detector):
    """effect: share of the current's values outside the reference's range."""

    name = "out_of_range"
    takes = ("values",)
    floor = 0.005

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        x, y = known(reference["values"], "reference"), known(current["values"], "current")
        low, high = float(x.min()), float(x.max())
        below, above = int((y < low).sum()), int((y > high).sum())
        p = min(1.0, 2 * min(_all_from(below, len(y), len(x)), _all_from(above, len(y), len(x))))
        share = (below + above) / len(y)
        details = {"range": [low, high], "below": below, "above": above}
        return Finding(share, p, share, details, (len(x), len(y)))


def _all_from(k: int, m: int, n: int) -> float:
    """The chance that the k most extreme of m + n exchangeable values are all of the m."""
    return math.exp(sum(math.log((m - i) / (m + n - i)) for i in range(min(k, 100))))
