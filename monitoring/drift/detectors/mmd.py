"""Whether a cloud of embeddings changed: maximum mean discrepancy (Gretton et al. 2012), by permutations."""

import numpy as np

from monitoring.drift.base import CannotJudge, Columns, Detector, Engine, Finding, Floats

ROWS = 500  # a side, drawn with the seed: the cost grows with their square


class MaximumMeanDiscrepancy(Detector):
    """effect: MMD² (0 to 2). At 500 rows a side what is found is never tiny, so the floor is low."""

    name = "mmd"
    takes = ("vectors",)
    floor = 0.0005

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        x, y = clouds(reference, current, seed)
        found = engine.mmd(x, y, seed)
        return Finding(found.statistic, found.p, found.statistic, n=(len(x), len(y)))


def clouds(reference: Columns, current: Columns, seed: int) -> tuple[Floats, Floats]:
    """Up to ROWS finite rows a side. Raises CannotJudge: other widths, rows that are not finite, no variance."""
    sides = reference["vectors"], current["vectors"]
    if sides[0].shape[1] != sides[1].shape[1]:
        raise CannotJudge(f"vectors of {sides[0].shape[1]} numbers in the reference, of {sides[1].shape[1]} now")
    found = []
    for side, name, shift in zip(sides, ("reference", "current"), (0, 1), strict=True):
        whole = side[np.isfinite(side).all(axis=1)]
        if len(whole) < min(ROWS, len(side)) / 2:
            raise CannotJudge(f"{len(side) - len(whole)} of {len(side)} vectors of the {name} are not finite")
        rng = np.random.default_rng([seed, shift])
        found.append(whole[np.sort(rng.choice(len(whole), min(ROWS, len(whole)), replace=False))].astype(np.float64))
    if all((side == found[0][0]).all() for side in found):
        raise CannotJudge("constant: every vector is the same on both sides", weighs=False)
    return found[0], found[1]
