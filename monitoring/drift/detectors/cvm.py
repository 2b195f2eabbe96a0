"""Whether a number's distribution changed, by the whole distance: Cramér & von Mises (Anderson 1962)."""

import math

from monitoring.drift.base import Columns, Detector, Engine, Finding
from monitoring.drift.detectors.ks import moments, numbers

UNDER_NULL = 1 / 6  # the statistic's mean where nothing changed


class CramerVonMises(Detector):
    """effect: root mean square distance of the two distribution functions, less what chance gives."""

    name = "cvm"
    takes = ("values",)
    floor = 0.02

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        x, y = numbers(reference, current)
        found = engine.cvm(x, y)
        rows = len(x) * len(y) / (len(x) + len(y))
        effect = math.sqrt(max(found.statistic - UNDER_NULL, 0) / rows)
        return Finding(found.statistic, found.p, effect, moments(x, y), (len(x), len(y)))
