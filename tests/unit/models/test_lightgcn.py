import numpy as np
import pytest

from training.interactions import DAY_US, Positives
from training.models.lightgcn import LightGCNConfig, fit_lightgcn

UNTIL = 30 * DAY_US
SMALL = LightGCNConfig(dimensions=8, min_steps=20, max_steps=20, batch=16)


def published(items: int) -> np.ndarray:
    return np.zeros(items, np.int64)


def two_groups(users: int = 20, items: int = 16) -> Positives:
    """Even users want even items, odd users odd ones, one every other day; user 0 has not met item 0, nor 1 item 1."""
    pairs = [(u, i) for u in range(users) for i in range(items) if u % 2 == i % 2 and (u, i) not in {(0, 0), (1, 1)}]
    user, item = np.array(pairs, np.int32).T
    day = (item // 2 * 3 + user) % 28
    order = np.lexsort((item, day, user))
    return Positives(
        UNTIL, users, user[order], item[order], (day[order] + 1) * DAY_US, np.ones(len(user), np.float32)
    )  # sorted as a log is


@pytest.mark.parametrize("candidates", [20_000, 4])
def test_an_unmet_item_of_the_own_group_scores_above_all_of_the_other(candidates: int) -> None:
    model = fit_lightgcn(two_groups(), published(16), SMALL.model_copy(update={"candidates": candidates}), seed=0)
    taste = model.users[:, :-1] @ model.items[:, :-1].T
    assert model.steps == 20
    assert taste[0, 0] > taste[0, 1::2].max()
    assert taste[1, 1] > taste[1, 0::2].max()


def test_the_same_seed_gives_the_same_arrays() -> None:
    one, other = (fit_lightgcn(two_groups(), published(16), SMALL, seed=3) for _ in range(2))
    assert np.array_equal(one.users, other.users)
    assert np.array_equal(one.items, other.items)


def test_an_item_that_is_over_stands_below_a_recent_one() -> None:
    log = Positives(
        UNTIL,
        1,
        np.zeros(4, np.int32),
        np.array([0, 0, 0, 1], np.int32),
        np.array([0, 0, 0, UNTIL - 1]),
        np.ones(4, np.float32),
    )
    model = fit_lightgcn(log, published(2), SMALL, seed=0)
    assert model.items[1, -1] > model.items[0, -1]


@pytest.mark.parametrize("n_items", [2, 5])
def test_a_log_of_one_event_trains_and_items_without_edges_get_finite_embeddings(n_items: int) -> None:
    one = Positives(UNTIL, 2, np.zeros(1, np.int32), np.zeros(1, np.int32), np.full(1, 5), np.ones(1, np.float32))
    model = fit_lightgcn(one, published(n_items), SMALL, seed=0)
    assert model.steps == 0
    assert np.isfinite(model.users).all()
    assert np.isfinite(model.items).all()
    assert not model.users[1, :-1].any()  # nothing is known of that user: the dimension of standing alone decides
