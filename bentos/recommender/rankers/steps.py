"""Isotonic calibration behind a ranker: log odds → log odds along straight lines between knots.

A strictly rising map, so that it moves no candidate but where float32 rounds two scores to one. Graphs have the same
formula as nodes (training/models/stepped.py). K knots, R rows.
"""

import numpy as np
from numpy.typing import NDArray

MOST_KNOTS = 64


class Steps:
    """x, y: float32 [K], both rising; tail: the slope left and right of them.

    at_x, at_y, slope, most: float32 [K + 1], of the lines from left to right: a point of each, how it rises, and the
    value that rounding may not carry it beyond.
    """

    def __init__(self, x: NDArray[np.floating], y: NDArray[np.floating], tail: float) -> None:  # type: ignore[type-arg]
        """
        Raises:
            ValueError: no knots or too many, or they do not rise.
        """
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        if x.ndim != 1 or x.shape != y.shape or not 0 < len(x) <= MOST_KNOTS:
            raise ValueError(f"{x.shape} and {y.shape} are no pairs of 1 to {MOST_KNOTS} knots")
        run, rise = np.diff(x.astype(np.float64)), np.diff(y.astype(np.float64))
        if not (np.isfinite([*x, *y, tail]).all() and (run > 0).all() and (rise > 0).all() and tail > 0):
            raise ValueError("the knots do not rise")
        slope = np.concatenate([[tail], rise / run, [tail]])
        self.x, self.y, self.tail = x, y, float(tail)
        self.at_x, self.at_y = np.concatenate([x[:1], x]), np.concatenate([y[:1], y])
        self.slope = slope.astype(np.float32)
        self.most = np.append(y, np.finfo(np.float32).max)

    def __call__(self, log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [R] → float32 [R]. Each value by itself: the same bits beside any others."""
        line = np.searchsorted(self.x, log_odds, side="right")
        risen = self.at_y[line] + self.slope[line] * (log_odds - self.at_x[line])
        return np.asarray(np.minimum(risen, self.most[line]), np.float32)
