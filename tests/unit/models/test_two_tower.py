from pathlib import Path

import numpy as np

from contracts.dataset import DatasetConfig
from tests.unit.models.two_tastes import SMALL, UNTIL_US
from training.interactions import Log, read_items, read_log
from training.models.timeline import Timeline
from training.models.two_tower import Sessions, fit_two_tower
from training.retrieval import last_interactions


def read(world: Path) -> Log:
    return read_log(world, DatasetConfig.read(world), read_items(world, UNTIL_US), UNTIL_US)


def test_a_history_holds_the_last_ten_strictly_before_and_no_impression(world: Path) -> None:
    log = read(world)
    asked = np.arange(0, len(log), 7)
    users, moments = log.user[asked].astype(np.int64), log.timestamp_us[asked]
    got, ages = Sessions(log).before(users, moments)
    for user, now, found, age in zip(users, moments, got, ages, strict=True):
        before = np.flatnonzero((log.user == user) & (log.timestamp_us < now) & ~log.impression)[::-1][:10]
        assert found[found >= 0].tolist() == log.item[before].tolist()
        assert np.allclose(age[found >= 0], (now - log.timestamp_us[before]) / 3.6e9)


def test_the_history_at_the_cut_is_what_evaluation_and_export_read(world: Path) -> None:
    log = read(world)
    users = np.arange(log.n_users)
    rows, ages = Sessions(log).before(users, np.full(log.n_users, UNTIL_US))
    expected_rows, expected_ages = last_interactions(log, users)
    assert np.array_equal(rows, expected_rows)
    assert np.array_equal(ages, expected_ages)


def test_the_tower_holds_what_each_user_had_taken_up_and_nothing_for_one_nobody_knows(world: Path) -> None:
    items = read_items(world, UNTIL_US)
    log = read_log(world, DatasetConfig.read(world), items, UNTIL_US)
    model = fit_two_tower(log, items.catalogue, items.titles, SMALL.two_tower, seed=0)
    past = model.users.user.weight.numpy()
    assert not past[0].any()
    seen = np.diff(Timeline(log.positives(), len(items.catalogue), 60.0).start) > 0
    assert np.allclose(np.linalg.norm(past[1:][seen], axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(model.items, axis=1), 1, atol=1e-5)
