"""Whether slates reach more or fewer different items: distinct items, by permutations of the rows."""

import numpy as np

from monitoring.drift.base import Codes, Columns, Detector, Engine, Finding

PERMUTATIONS = 999


class Coverage(Detector):
    """effect: distinct items now over those of as many rows drawn from both sides, − 1, absolute."""

    name = "coverage"
    takes = ("items",)
    floor = 0.05

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        both = np.unique(np.concatenate([reference["items"], current["items"]]), return_inverse=True)[1]
        m, kinds = len(current["items"]), int(both.max()) + 1
        rng = np.random.default_rng(seed)
        now = len(np.unique(current["items"]))

        def distinct(codes: Codes) -> int:
            met = np.zeros(kinds, np.bool_)
            met[codes] = True
            return int(met.sum())

        drawn = np.array([distinct(rng.choice(both, m, replace=False)) for _ in range(PERMUTATIONS)])
        sides = int((drawn <= now).sum()), int((drawn >= now).sum())
        p = min(1.0, 2 * (min(sides) + 1) / (PERMUTATIONS + 1))
        expected = float(drawn.mean())
        return Finding(float(now), p, abs(now / expected - 1), {"distinct": now, "expected": expected})
