"""Categories that the reference never had, more of them than rare ones explain."""

import numpy as np

from monitoring.drift.base import Columns, Detector, Engine, Finding, present

SHOWN = 5


class Unseen(Detector):
    """effect: their share of the rows.

    p: binomial, with Good & Turing's (1953) rate of the unseen: one over n for each category that the reference has
    once, and one more.
    """

    name = "unseen"
    takes = ("codes",)
    floor = 0.005

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        from scipy.stats import binom

        x, y = present(reference["codes"], "reference"), present(current["codes"], "current")
        counts = np.bincount(x, minlength=int(max(x.max(initial=0), y.max(initial=0))) + 1)
        new = y[counts[y] == 0]
        rate = min((int((counts == 1).sum()) + 1) / (len(x) + 1), 1.0)
        share = len(new) / max(len(y), 1)
        seen, times = np.unique(new, return_counts=True)
        often = np.argsort(-times, kind="stable")[:SHOWN]
        details = {
            "categories": len(seen),
            "moved": [{"category": int(seen[i]), "reference": 0.0, "current": float(times[i] / len(y))} for i in often],
        }
        return Finding(share, float(binom.sf(len(new) - 1, len(y), rate)), share, details, (len(x), len(y)))
