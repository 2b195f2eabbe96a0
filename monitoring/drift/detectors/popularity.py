"""Whether slates lean more on popular items: how often the reference showed each item that is shown."""

import numpy as np

from monitoring.drift.base import LEAST_ROWS, CannotJudge, Columns, Detector, Engine, Finding


class Popularity(Detector):
    """effect: Kolmogorov & Smirnov's distance of log counts.

    Half of the reference's rows count, the other half is compared: an item would be popular by its own row.
    """

    name = "popularity"
    takes = ("items",)
    floor = 0.03

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        x, y = reference["items"], current["items"]
        if len(x) < 2 * LEAST_ROWS:
            raise CannotJudge(f"{len(x)} rows in the reference, fewer than {2 * LEAST_ROWS}")
        order = np.random.default_rng(seed).permutation(len(x))
        counted, compared = x[order[: len(x) // 2]], x[order[len(x) // 2 :]]
        counts = np.log1p(np.bincount(counted, minlength=int(max(x.max(), y.max())) + 1))
        before, now = counts[compared], counts[y]
        if before.min() == before.max() == now.min() == now.max():
            raise CannotJudge("constant: every item is as popular as every other", weighs=False)
        found = engine.ks(before, now)
        details = {"reference": float(np.expm1(before.mean())), "current": float(np.expm1(now.mean()))}
        return Finding(found.statistic, found.p, found.statistic, details, (len(before), len(now)))
