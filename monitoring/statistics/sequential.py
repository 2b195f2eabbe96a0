"""Group-sequential bounds: a few looks at sizes fixed beforehand, sharper than always-valid intervals there.

Lan & DeMets (1983) spending functions; bounds by the recursive integration of Armitage, McPherson & Rowe (1969).
Two-sided and symmetric: each side spends α / 2.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, roots_legendre

Spending = Literal["obrien_fleming", "pocock"]
NODES = 160  # of Gauss-Legendre over what has not stopped: bounds are good to 1e-6
FARTHEST = 12.0  # standard errors; beyond it nothing is spent


def obrien_fleming(t: float, alpha: float) -> float:
    """Of one side's α, what may be spent at information t of 1: next to nothing early."""
    return 2 * float(ndtr(ndtri(alpha / 2) / math.sqrt(t)))


def pocock(t: float, alpha: float) -> float:
    return alpha * math.log(1 + (math.e - 1) * t)


SPENDING: dict[Spending, Callable[[float, float], float]] = {"obrien_fleming": obrien_fleming, "pocock": pocock}


def bounds(
    information: Sequence[float], alpha: float = 0.05, spending: Spending = "obrien_fleming"
) -> tuple[float, ...]:
    """|z| to stop at, one a look. information: of each look, as shares of the last's, growing to at most 1.

    Raises:
        ValueError: shares that do not grow within (0, 1], or alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}")
    grows = all(a < b for a, b in zip([0.0, *information], information, strict=False))
    if not information or not grows or information[-1] > 1:
        raise ValueError("information grows within (0, 1]")
    spent, found = 0.0, []
    looks = _Looks()
    for t in information:
        may = SPENDING[spending](t, alpha / 2)
        bound = looks.bound(t, max(may - spent, 0.0))
        looks.go_on(t, bound)
        found.append(bound)
        spent = may
    return tuple(found)


def crossing(information: Sequence[float], found: Sequence[float], drift: float = 0.0) -> float:
    """The chance to stop at one of the looks. drift: the mean of z at information 1; 0: the false-positive rate."""
    looks = _Looks(drift)
    stopped = 0.0
    for t, bound in zip(information, found, strict=True):
        stopped += looks.above(t, bound) + looks.below(t, -bound)
        looks.go_on(t, bound)
    return stopped


def inflation(information: Sequence[float], found: Sequence[float], alpha: float, power: float) -> float:
    """How many times the units of a fixed test the last look needs for the same power."""
    alone = float(ndtri(1 - alpha / 2) + ndtri(power))
    drift = brentq(lambda d: crossing(information, found, d) - power, 0.0, 4 * alone, xtol=1e-9)
    return (float(drift) / alone) ** 2


class _Looks:
    """The density of the score B(t) = z √t, a Brownian motion with `drift`, on the paths that have not stopped."""

    def __init__(self, drift: float = 0.0) -> None:
        self.drift = drift
        self.t = 0.0
        self.at: NDArray[np.float64] = np.zeros(1)
        self.mass: NDArray[np.float64] = np.ones(1)

    def above(self, t: float, z: float) -> float:
        """The chance to be over `z` at `t`."""
        return float(self.mass @ ndtr(-(z * math.sqrt(t) - self._mean(t)) / math.sqrt(t - self.t)))

    def below(self, t: float, z: float) -> float:
        return float(self.mass @ ndtr((z * math.sqrt(t) - self._mean(t)) / math.sqrt(t - self.t)))

    def bound(self, t: float, spend: float) -> float:
        if self.above(t, FARTHEST) >= spend:
            return FARTHEST
        return float(brentq(lambda z: self.above(t, z) - spend, -FARTHEST, FARTHEST, xtol=1e-10))

    def go_on(self, t: float, bound: float) -> None:
        nodes, weights = roots_legendre(NODES)
        half = abs(bound) * math.sqrt(t)
        at, step = half * nodes, math.sqrt(t - self.t)
        apart = (at[:, None] - self._mean(t)[None, :]) / step
        density = np.exp(-(apart**2) / 2) / (step * math.sqrt(2 * math.pi))
        self.mass = half * weights * (density @ self.mass)
        self.at, self.t = at, t

    def _mean(self, t: float) -> NDArray[np.float64]:
        return self.at + self.drift * (t - self.t)
