import numpy as np
import pytest

from training.interactions import DAY_US, Positives
from training.models.lightgcn import LightGCNConfig, fit_lightgcn

UNTIL = 30 * DAY_US


def two_groups(users: int = 20, items: int = 16) -> Positives:
    """Even users want even items, odd users odd ones; user 0 has not met item 0, user 1 not item 1."""
    pairs = [(u, i) for u in range(users) for i in range(items) if u % 2 == i % 2 and (u, i) not in {(0, 0), (1, 1)}]
    user, item = np.array(pairs, np.int32).T
    return Positives(UNTIL, users, user, item, np.full(len(user), UNTIL - DAY_US), np.ones(len(user), np.float32))


def test_an_unmet_item_of_the_own_group_scores_above_all_of_the_other() -> None:
    config = LightGCNConfig(dimensions=8, min_steps=60, max_steps=60)
    model = fit_lightgcn(two_groups(), 16, config, seed=0)
    scores = model.users @ model.items.T
    assert scores[0, 0] > scores[0, 1::2].max()
    assert scores[1, 1] > scores[1, 0::2].max()


def test_a_taste_that_is_over_counts_less_than_a_recent_one() -> None:
    user = np.zeros(4, np.int32)
    recent = Positives(
        UNTIL,
        1,
        user,
        np.array([0, 0, 0, 1], np.int32),
        np.array([0, 0, 0, UNTIL - 1]),
        np.ones(4, np.float32),
    )
    model = fit_lightgcn(recent, 2, LightGCNConfig(dimensions=4, standing_half_life_d=5.0), seed=0)
    assert model.items[1, -1] > model.items[0, -1]


@pytest.mark.parametrize("n_items", [2, 5])
def test_items_without_edges_get_finite_embeddings(n_items: int) -> None:
    one = Positives(UNTIL, 2, np.zeros(1, np.int32), np.zeros(1, np.int32), np.full(1, 5), np.ones(1, np.float32))
    model = fit_lightgcn(one, n_items, LightGCNConfig(dimensions=4), seed=0)
    assert np.isfinite(model.users).all()
    assert np.isfinite(model.items).all()


def test_the_edge_budget_bounds_the_steps() -> None:
    config = LightGCNConfig(dimensions=4, min_steps=60, edge_budget=158 * 2 * 7)
    assert fit_lightgcn(two_groups(), 16, config, seed=0).steps == 7
