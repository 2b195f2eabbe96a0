import numpy as np
import torch

from training.interactions import DAY_US, Positives
from training.models.timeline import Batch, Candidates, Timeline, loss

UNTIL = 30 * DAY_US


def three_users() -> Positives:
    """User 0 takes up item 0 twice, then 1 and 2; user 1 begins on day 11; user 2 does nothing."""
    user = np.array([0, 0, 0, 0, 1, 1], np.int32)
    item = np.array([0, 0, 1, 2, 0, 1], np.int32)
    time = np.array([1, 11, 12, 21, 11, 12]) * DAY_US
    return Positives(UNTIL, 3, user, item, time, np.ones(6, np.float32))


def test_a_period_tells_of_users_with_something_new_and_of_newcomers_where_they_are_asked_for() -> None:
    timeline = Timeline(three_users(), 3, half_life_d=10.0)
    ends = np.array([0, 10, 20, 30]) * DAY_US
    assert timeline.first.tolist() == [True, False, True, True, True, True]
    assert [u.tolist() for u in timeline.users(ends, newcomers=False)] == [[0], [0]]
    assert [u.tolist() for u in timeline.users(ends, newcomers=True)] == [[0, 1], [0]]


def test_a_batch_knows_edges_before_the_period_and_wants_new_items_from_the_moment_on() -> None:
    timeline = Timeline(three_users(), 3, half_life_d=10.0)
    batch = timeline.batch(np.array([2, 0]), 11 * DAY_US, 20 * DAY_US, np.array([11, 12]) * DAY_US)
    assert batch.row.tolist() == [1, 1, 1, 1]
    assert batch.item.tolist() == [0, 0, 1, 2]
    assert batch.met.tolist() == [True, True, False, False]
    assert batch.wanted.tolist() == [False, False, True, False]  # item 2 comes after the period
    assert np.allclose(batch.edge, [0.5, 0, 0, 0])  # the second event of item 0 is not before the period


def test_a_users_moment_is_one_at_which_they_took_up_something_new_in_the_period() -> None:
    timeline = Timeline(three_users(), 3, half_life_d=10.0)
    draw = np.random.default_rng(0)
    drawn = [timeline.moments(np.array([0, 1]), 10 * DAY_US, 20 * DAY_US, draw) for _ in range(20)]
    assert {int(d[0]) // DAY_US for d in drawn} == {12}  # on day 11 user 0 met nothing new
    assert {int(d[1]) // DAY_US for d in drawn} == {11, 12}


def test_drawn_candidates_hold_what_is_wanted_with_the_chance_of_being_among_them() -> None:
    timeline = Timeline(three_users(), 50, half_life_d=10.0)
    batch = timeline.batch(np.array([0]), 11 * DAY_US, 30 * DAY_US, 11 * DAY_US)
    found = timeline.candidates(batch, 10, np.random.default_rng(0))
    assert np.isin([1, 2], found.items).all()
    assert 10 <= len(found.items) <= 12
    unwanted = ~np.isin(found.items, [0, 1, 2])
    assert np.allclose(found.log_q[unwanted], np.log(10 / 50))
    assert (found.log_q[~unwanted] > np.log(10 / 50)).all()
    assert not timeline.candidates(batch, 50, np.random.default_rng(0)).log_q.any()


def test_the_loss_is_a_softmax_without_what_was_met_and_a_user_with_four_wishes_counts_twice() -> None:
    row = np.array([0, 0, 1, 1, 1, 1])
    item = np.array([0, 1, 0, 1, 2, 3])
    met = np.array([True, False, False, False, False, False])
    batch = Batch(2, row, item, met, ~met, np.zeros(6, np.float32), np.ones(6, np.float32))
    got = loss(torch.zeros(2, 4), Candidates(np.arange(4), np.zeros(4, np.float32)), batch)
    # User 0: one wish among the three items that are left; user 1: four among four, each with weight 1/2.
    assert np.isclose(float(got), (np.log(3) + 2 * np.log(4)) / 3)
