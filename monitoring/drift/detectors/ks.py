"""Whether a number's distribution changed: Kolmogorov & Smirnov's two-sample test."""

import numpy as np

from monitoring.drift.base import CannotJudge, Columns, Detector, Engine, Finding, Floats, known


class KolmogorovSmirnov(Detector):
    """effect: the largest distance of the two distribution functions. A shift of 0.08 standard deviations has 0.03."""

    name = "ks"
    takes = ("values",)
    floor = 0.03

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        x, y = numbers(reference, current)
        found = engine.ks(x, y)
        return Finding(found.statistic, found.p, found.statistic, moments(x, y), (len(x), len(y)))


def numbers(reference: Columns, current: Columns) -> tuple[Floats, Floats]:
    """The values that are there. Raises CannotJudge where they never vary."""
    x, y = known(reference["values"], "reference"), known(current["values"], "current")
    if x.min() == x.max() == y.min() == y.max():
        raise CannotJudge(f"constant: every value is {x[0]:g} on both sides", weighs=False)
    return x, y


def moments(x: Floats, y: Floats) -> dict[str, dict[str, float]]:
    def of(side: Floats) -> dict[str, float]:
        with np.errstate(over="ignore", invalid="ignore"):
            found = {"mean": side.mean(), "sd": side.std(), "median": np.median(side)}
        return {name: float(value) for name, value in found.items() if np.isfinite(value)}

    return {"reference": of(x), "current": of(y)}
