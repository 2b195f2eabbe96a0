"""Whether a cloud of embeddings changed: least-squares density difference (Sugiyama et al. 2013), by permutations."""

from monitoring.drift.base import Columns, Detector, Engine, Finding
from monitoring.drift.detectors.mmd import clouds


class DensityDifference(Detector):
    """effect: the difference as the engine scales it; only p decides."""

    name = "lsdd"
    takes = ("vectors",)
    floor = 0.0

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        x, y = clouds(reference, current, seed)
        found = engine.lsdd(x, y, seed)
        return Finding(found.statistic, found.p, max(found.statistic, 0.0), n=(len(x), len(y)))
