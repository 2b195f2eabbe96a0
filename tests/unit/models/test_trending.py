import numpy as np

from training.interactions import DAY_US, Positives
from training.models.trending import TrendingConfig, fit_trending


def test_counts_halve_each_half_life() -> None:
    until = 50 * DAY_US
    log = Positives(
        until,
        1,
        np.zeros(3, np.int32),
        np.array([0, 1, 1], np.int32),
        np.array([until, until - 7 * DAY_US, until - 14 * DAY_US]),
        np.array([1.0, 1.0, 2.0], np.float32),
    )
    assert np.allclose(fit_trending(log, 3, TrendingConfig(half_life_d=7.0)), [1.0, 0.5 + 2 * 0.25, 0.0])
