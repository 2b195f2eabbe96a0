"""Whether the shares of categories changed: Pearson's χ² test of homogeneity."""

import math

import numpy as np

from monitoring.drift.base import CannotJudge, Columns, Detector, Engine, Finding, present

LEAST_EXPECTED = 5  # rows of a category that its side must expect, for χ² to be the law; rarer ones are one category
MOVED = 5


class ChiSquare(Detector):
    """effect: Cohen's w, less what chance gives: root of (χ² − df) · (n + m) / (n m).

    A share that goes from 5 % to 6 % has w 0.05 (5 % to 10 %: 0.22), whatever the other categories.
    """

    name = "chi_square"
    takes = ("codes",)
    floor = 0.05

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        x, y = present(reference["codes"], "reference"), present(current["codes"], "current")
        categories = int(max(x.max(), y.max())) + 1
        counts = np.stack([np.bincount(x, minlength=categories), np.bincount(y, minlength=categories)])
        n, m = len(x), len(y)
        expected = counts.sum(axis=0) * min(n, m) / (n + m)
        common = expected >= LEAST_EXPECTED
        as_one = np.where(common, np.cumsum(common) - 1, common.sum())
        if (counts.sum(axis=0) > 0).sum() < 2:
            raise CannotJudge("constant: one category on both sides", weighs=False)
        if len(np.unique(as_one[counts.sum(axis=0) > 0])) < 2:
            raise CannotJudge("every category is too rare to compare: it identifies rows")
        found = engine.chi_square(as_one[x], as_one[y])
        df = int(common.sum()) + int((counts[:, ~common].sum()) > 0) - 1
        effect = math.sqrt(max(found.statistic - df, 0) * (n + m) / (n * m))
        shares = counts / counts.sum(axis=1, keepdims=True)
        moved = np.argsort(-np.abs(shares[1] - shares[0]), kind="stable")[:MOVED]
        details = {
            "moved": [
                {"category": int(c), "reference": float(shares[0, c]), "current": float(shares[1, c])}
                for c in moved
                if shares[0, c] != shares[1, c]
            ]
        }
        return Finding(found.statistic, found.p, effect, details, (n, m))
