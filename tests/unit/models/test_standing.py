from pathlib import Path

import numpy as np

from contracts.dataset import DatasetConfig
from tests.unit.models.two_tastes import UNTIL_US
from training.interactions import DAY_US, Positives, read_items, read_log
from training.models.standing import STANDING_HALF_LIVES_D, period_ends, standings


def test_a_standing_never_counts_an_event_at_or_after_its_moment() -> None:
    moment = 40 * DAY_US
    time = np.array([moment - 3 * DAY_US, moment, moment + DAY_US])
    log = Positives(50 * DAY_US, 1, np.zeros(3, np.int32), np.array([0, 1, 1], np.int32), time, np.ones(3, np.float32))
    (standing,) = standings(log, np.zeros(2, np.int64), np.array([moment]))
    # One event, three days old: the mean item of two has half of it, whatever the half-life.
    for h in range(len(STANDING_HALF_LIVES_D)):
        assert np.allclose(standing[:, 2 * h], [np.log(2.01), np.log(0.01)], atol=1e-5)


def test_periods_end_at_the_cut_and_a_short_log_still_has_several(world: Path) -> None:
    log = read_log(world, DatasetConfig.read(world), read_items(world, UNTIL_US), UNTIL_US).positives()
    ends = period_ends(log, period_d=7.0)
    assert ends[-1] == UNTIL_US
    assert len(ends) >= 12
