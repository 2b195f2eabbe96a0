"""Population stability index: what credit scoring watches, with a p-value of its own.

Its law where nothing changed: PSI · n m / (n + m) is χ² with one degree of freedom fewer than there are bins
(Yurdakul & Naranjo 2020).
"""

import numpy as np

from monitoring.drift.base import Columns, Detector, Engine, Finding
from monitoring.drift.detectors.ks import moments, numbers

BINS = 10


class PopulationStability(Detector):
    """effect: the index over ten bins of equal share in the reference. By custom 0.1 is moderate, 0.25 large."""

    name = "psi"
    takes = ("values",)
    floor = 0.1

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        from scipy.stats import chi2

        x, y = numbers(reference, current)
        edges = np.unique(np.quantile(x, np.arange(1, BINS) / BINS))
        counts = [np.bincount(np.searchsorted(edges, side, side="left"), minlength=len(edges) + 1) for side in (x, y)]
        # Half a row in each bin: an empty one has no logarithm.
        p, q = ((c + 0.5) / (c.sum() + 0.5 * len(c)) for c in counts)
        psi = float(((q - p) * np.log(q / p)).sum())
        rows = len(x) * len(y) / (len(x) + len(y))
        return Finding(psi, float(chi2.sf(psi * rows, len(edges))), psi, moments(x, y), (len(x), len(y)))
