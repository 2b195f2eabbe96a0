from pathlib import Path

import numpy as np

from contracts.dataset import DatasetConfig
from tests.unit.models.two_tastes import UNTIL_US
from training.interactions import DAY_US, Positives, read_items, read_log
from training.models.two_tower import STANDING_HALF_LIVES_D, examples, histories, period_ends, standings


def test_a_history_holds_the_last_ten_strictly_before_and_no_impression(world: Path) -> None:
    items = read_items(world, UNTIL_US)
    log = read_log(world, DatasetConfig.read(world), items, UNTIL_US)
    ex = examples(log, 30.0, new_items_only=False)
    rows = np.arange(0, len(ex.target), 7)
    got, ages = histories(log, ex, rows)
    for row, found, age in zip(rows, got, ages, strict=True):
        target = ex.history_events[ex.target[row]]
        user, now = log.user[target], log.timestamp_us[target]
        before = np.flatnonzero((log.user == user) & (log.timestamp_us < now) & ~log.impression)[::-1][:10]
        assert found[found >= 0].tolist() == log.item[before].tolist()
        assert np.allclose(age[found >= 0], (now - log.timestamp_us[before]) / 3.6e9)


def test_only_the_first_wish_for_an_item_is_an_example_when_new_items_count(world: Path) -> None:
    items = read_items(world, UNTIL_US)
    log = read_log(world, DatasetConfig.read(world), items, UNTIL_US)
    ex = examples(log, 30.0, new_items_only=True)
    event = ex.history_events[ex.target]
    pairs = list(zip(log.user[event].tolist(), log.item[event].tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    for position, (user, item) in list(zip(event, pairs, strict=True))[:50]:
        wanted = (log.user == user) & (log.item == item) & (log.weight > 0)
        assert log.timestamp_us[position] == log.timestamp_us[wanted].min()


def test_a_standing_never_counts_an_event_at_or_after_its_moment() -> None:
    moment = 40 * DAY_US
    time = np.array([moment - 3 * DAY_US, moment, moment + DAY_US])
    log = Positives(50 * DAY_US, 1, np.zeros(3, np.int32), np.array([0, 1, 1], np.int32), time, np.ones(3, np.float32))
    (standing,) = standings(log, np.zeros(2, np.int64), np.array([moment]))
    # One event, three days old: the mean item of two has half of it, whatever the half-life.
    for h in range(len(STANDING_HALF_LIVES_D)):
        assert np.allclose(standing[:, 2 * h], [np.log(2.01), np.log(0.01)], atol=1e-5)


def test_periods_end_at_the_cut_and_a_short_log_still_has_several(world: Path) -> None:
    log = read_log(world, DatasetConfig.read(world), read_items(world, UNTIL_US), UNTIL_US)
    ends = period_ends(log, period_d=7.0)
    assert ends[-1] == UNTIL_US
    assert len(ends) >= 12
