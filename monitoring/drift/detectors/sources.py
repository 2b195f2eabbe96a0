"""Whether the sources still propose their shares of what is shown. An item may have several sources."""

import numpy as np

from monitoring.drift.base import CannotJudge, Columns, Detector, Engine, Finding


class SourceShares(Detector):
    """effect: the largest difference of a source's share, absolute. p: Fisher's for each, by Bonferroni."""

    name = "sources"
    takes = ("sources",)
    floor = 0.02

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        x, y = reference["sources"], current["sources"]
        if x.shape[1] != y.shape[1]:
            raise CannotJudge(f"{x.shape[1]} sources in the reference, {y.shape[1]} now")
        varies = [s for s in range(x.shape[1]) if x[:, s].any() or y[:, s].any()]
        if not varies:
            raise CannotJudge("no row has a source")
        p = min(engine.fisher(x[:, s], y[:, s]).p for s in varies)
        before, now = x.mean(axis=0), y.mean(axis=0)
        apart = np.abs(now - before)
        moved = [
            {"category": int(s), "reference": float(before[s]), "current": float(now[s])}
            for s in np.argsort(-apart, kind="stable")
            if apart[s] > 0
        ]
        return Finding(float(apart.max()), min(1.0, p * len(varies)), float(apart.max()), {"moved": moved})
