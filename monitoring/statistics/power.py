"""How many units an experiment needs, what it can see, and how long it takes.

Normal approximation, two-sided, the variance of each arm its own (unpooled: libraries that use the baseline's in both
arms find 29,826 where 31,231 are needed for 80 %). variance: of one unit. split: the treatment's share of the units.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from monitoring.statistics.always_valid import TUNING_N, radius, rho_squared

Method = Literal["fixed", "sequential"]
MOST = 1e15  # units; no traffic reaches it


@dataclass(frozen=True, slots=True)
class Design:
    alpha: float = 0.05
    power: float = 0.8
    split: float = 0.5
    method: Method = "fixed"
    tuning_n: int = TUNING_N

    def __post_init__(self) -> None:
        for name in ("alpha", "power", "split"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not between 0 and 1")
        if self.power <= self.alpha:
            raise ValueError(f"a power of {self.power} is no more than alpha")

    def critical(self, n: float) -> float:
        """Standard errors that an effect must be from 0 with `n` units in both arms."""
        if self.method == "fixed":
            return NormalDist().inv_cdf(1 - self.alpha / 2)
        return radius(n, self.alpha, rho_squared(self.alpha, self.tuning_n))


@dataclass(frozen=True, slots=True)
class Size:
    n_control: int
    n_treatment: int

    @property
    def total(self) -> int:
        return self.n_control + self.n_treatment


def sample_size(effect: float, control_variance: float, treatment_variance: float, design: Design) -> Size:
    """Units an arm so that the look at this size finds `effect` with the design's power.

    Sequential: earlier looks can only add power, so the true power is a little over it.
    """
    if not effect or not math.isfinite(effect):
        raise ValueError(f"an effect of {effect} needs no finite number of units")
    if not control_variance + treatment_variance > 0:
        raise ValueError("the metric does not vary")
    per_unit = _variance(control_variance, treatment_variance, design)
    z = NormalDist().inv_cdf(design.power)

    def short(n: float) -> bool:
        return abs(effect) * math.sqrt(n / per_unit) < design.critical(n) + z

    low, high = 2.0, 4.0
    while short(high):
        low, high = high, 2 * high
        if high > MOST:
            raise ValueError("more units than any traffic has: the effect is too small")
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if short(middle) else (low, middle)
    # An exact whole number is not rounded up for its last bit.
    return Size(math.ceil(high * (1 - design.split) * (1 - 1e-12)), math.ceil(high * design.split * (1 - 1e-12)))


def power_at(effect: float, control_variance: float, treatment_variance: float, n: float, design: Design) -> float:
    """The chance that the look at `n` units of both arms finds `effect` on its own side."""
    se = math.sqrt(_variance(control_variance, treatment_variance, design) / n)
    return NormalDist().cdf(abs(effect) / se - design.critical(n))


def least_effect(control_variance: float, treatment_variance: float, n: float, design: Design) -> float:
    """The effect that `n` units of both arms find with the design's power, the variances as given."""
    se = math.sqrt(_variance(control_variance, treatment_variance, design) / n)
    return se * (design.critical(n) + NormalDist().inv_cdf(design.power))


def days(units: int, units_per_day: float) -> int:
    """Whole days until that many units have come."""
    if not units_per_day > 0:
        raise ValueError(f"{units_per_day} units a day")
    return math.ceil(units / units_per_day)


def bernoulli_variance(rate: float) -> float:
    if not 0 <= rate <= 1:
        raise ValueError(f"a rate of {rate}")
    return rate * (1 - rate)


def convention(design: Design) -> str:
    how = "fixed horizon"
    if design.method == "sequential":
        how = (
            f"always valid (asymptotic confidence sequence, tuned at {design.tuning_n:,} units), power at the last look"
        )
    return f"{how}, two-sided, normal, unpooled variance, absolute effect"


def _variance(control_variance: float, treatment_variance: float, design: Design) -> float:
    """n × the variance of the difference of two arms that n units are split into."""
    return control_variance / (1 - design.split) + treatment_variance / design.split
