"""Multi-window burn rates of a service level. Pure.

Source: Beyer et al., "The Site Reliability Workbook" (2018), chapter 5, "6: Multiwindow, Multi-Burn-Rate Alerts",
table 5-8: the budget of 30 days is burnt `factor` times too fast in the long window, and still is in the short one.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MINUTE_US = 60_000_000
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pair:
    severity: Literal["page", "ticket"]
    factor: float
    long_minutes: int
    short_minutes: int


PAIRS = (
    Pair("page", 14.4, 60, 5),  # 2 % of the month's budget in an hour
    Pair("page", 6.0, 360, 30),  # 5 % in six hours
    Pair("ticket", 1.0, 4320, 360),  # 10 % in three days
)
KEPT_MINUTES = max(pair.long_minutes for pair in PAIRS)


@dataclass(frozen=True, slots=True)
class Burn:
    """What one pair of windows says. Rates are multiples of the budget; None: nothing happened in that window."""

    pair: Pair
    long: float | None
    short: float | None
    n: int  # events in the long window

    @property
    def breached(self) -> bool:
        return self.long is not None and self.short is not None and min(self.long, self.short) > self.pair.factor


def burns(minutes: Ints, good: Ints, total: Ints, target: float, now_minute: int) -> list[Burn]:
    """minutes, good, total: (M,) counts of each minute since the epoch, in any order. target: share that must be good.
    The minute that `now_minute` names is not over, and is left out."""
    found = []
    for pair in PAIRS:
        long, n = _rate(minutes, good, total, target, now_minute, pair.long_minutes)
        short, _ = _rate(minutes, good, total, target, now_minute, pair.short_minutes)
        found.append(Burn(pair, long, short, n))
    return found


def _rate(
    minutes: Ints, good: Ints, total: Ints, target: float, now_minute: int, window: int
) -> tuple[float | None, int]:
    within = (minutes >= now_minute - window) & (minutes < now_minute)
    n = int(total[within].sum())
    if not n:
        return None, 0
    return (n - int(good[within].sum())) / n / (1.0 - target), n
