"""What is kept of an arm: sums over its units of assignment, which add up.

`value` is the arm's metric; `unit_variance` is n times the variance of `value`, so that both can be asked for in O(1).
Sums that no data can give raise ValueError.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def _count(n: float, name: str) -> None:
    if not math.isfinite(n) or n < 0:
        raise ValueError(f"{name} is {n}")


@dataclass(frozen=True, slots=True)
class Mean:
    """sd: of the units, with n − 1."""

    n: int
    mean: float
    sd: float

    def __post_init__(self) -> None:
        _count(self.n, "n")
        if self.sd < 0:
            raise ValueError(f"sd is {self.sd}")

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Mean":
        n = len(values)
        return cls(n, float(values.mean()) if n else 0.0, float(values.std(ddof=1)) if n > 1 else 0.0)

    @property
    def value(self) -> float:
        return self.mean if self.n else math.nan

    @property
    def unit_variance(self) -> float:
        return self.sd * self.sd if self.n > 1 else math.nan

    @property
    def variance(self) -> float:
        return self.unit_variance / self.n if self.n else math.nan

    def __add__(self, other: "Mean") -> "Mean":
        """Chan, Golub & LeVeque (1983)."""
        n = self.n + other.n
        if n < 2:
            return self if self.n else other
        apart = other.mean - self.mean
        squares = max(self.n - 1, 0) * self.sd**2 + max(other.n - 1, 0) * other.sd**2
        squares += apart**2 * self.n * other.n / n
        return Mean(n, self.mean + apart * other.n / n, math.sqrt(squares / (n - 1)))


@dataclass(frozen=True, slots=True)
class Proportion:
    n: int
    successes: int

    def __post_init__(self) -> None:
        _count(self.n, "n")
        if not 0 <= self.successes <= self.n:
            raise ValueError(f"{self.successes} successes of {self.n}")

    @property
    def value(self) -> float:
        return self.successes / self.n if self.n else math.nan

    @property
    def unit_variance(self) -> float:
        return self.value * (1 - self.value)

    @property
    def variance(self) -> float:
        return self.unit_variance / self.n if self.n else math.nan

    def __add__(self, other: "Proportion") -> "Proportion":
        return Proportion(self.n + other.n, self.successes + other.successes)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Σx / Σy, x and y of each unit. on: units with x > 0; None where it was not counted."""

    n: int
    sum_x: float
    sum_y: float
    sum_xx: float
    sum_yy: float
    sum_xy: float
    on: int | None = None

    def __post_init__(self) -> None:
        _count(self.n, "n")
        if self.on is not None and not 0 <= self.on <= self.n:
            raise ValueError(f"{self.on} units with an event of {self.n}")

    @classmethod
    def of(cls, x: NDArray[np.float64], y: NDArray[np.float64]) -> "Ratio":
        return cls(len(x), float(x.sum()), float(y.sum()), float(x @ x), float(y @ y), float(x @ y), int((x > 0).sum()))

    @property
    def value(self) -> float:
        return self.sum_x / self.sum_y if self.sum_y else math.nan

    @property
    def unit_variance(self) -> float:
        """Delta method: the variance of x − R y over units, by the square of mean y (Deng et al. 2018)."""
        if self.n < 2 or not self.sum_y:
            return math.nan
        r = self.value
        # x − R y sums to 0, so its variance is its mean square; rounding may take it just below 0.
        squares = self.sum_xx - 2 * r * self.sum_xy + r * r * self.sum_yy
        if squares < 1e-12 * (self.sum_xx + r * r * self.sum_yy):
            squares = 0.0
        return squares / (self.n - 1) / (self.sum_y / self.n) ** 2

    @property
    def variance(self) -> float:
        return self.unit_variance / self.n if self.n else math.nan

    def __add__(self, other: "Ratio") -> "Ratio":
        on = None if self.on is None or other.on is None else self.on + other.on
        return Ratio(
            self.n + other.n,
            self.sum_x + other.sum_x,
            self.sum_y + other.sum_y,
            self.sum_xx + other.sum_xx,
            self.sum_yy + other.sum_yy,
            self.sum_xy + other.sum_xy,
            on,
        )


Sample = Mean | Proportion | Ratio
