"""Categories of the reference that no row has any more: the other end of `unseen`."""

import math

import numpy as np

from monitoring.drift.base import Columns, Detector, Engine, Finding, present

SHOWN = 5


class Vanished(Detector):
    """effect: the share that they had in the reference. p: of the surest one, (1 − share)^rows, by Bonferroni.

    χ² over a hundred categories hardly sees one of them go; this looks at each.
    """

    name = "vanished"
    takes = ("codes",)
    floor = 0.005

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        x, y = present(reference["codes"], "reference"), present(current["codes"], "current")
        categories = int(max(x.max(), y.max())) + 1
        before, now = np.bincount(x, minlength=categories), np.bincount(y, minlength=categories)
        shares = before / len(x)
        gone = np.flatnonzero((before > 0) & (now == 0))
        most = float(shares[gone].max(initial=0))
        by_chance = math.exp(len(y) * math.log1p(-most)) if most < 1 else 0.0
        p = min(1.0, int((before > 0).sum()) * by_chance)
        often = gone[np.argsort(-shares[gone], kind="stable")][:SHOWN]
        details = {
            "categories": len(gone),
            "moved": [{"category": int(c), "reference": float(shares[c]), "current": 0.0} for c in often],
        }
        return Finding(most, p, float(shares[gone].sum()) if most else 0.0, details, (len(x), len(y)))
