"""Popularity and recency by hand; EASE against the definition of its optimum."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from training.baselines import ease, popularity, recency

DAY_US = 86_400_000_000


def test_popularity_counts_users_not_events() -> None:
    met = csr_matrix(np.array([[1, 1, 0], [1, 0, 0]], np.float32))
    assert popularity.fit(met).tolist() == [2, 1, 0]


def test_recency_halves_an_event_every_half_life() -> None:
    items = np.array([0, 1, 1])
    times = np.array([10 * DAY_US, 10 * DAY_US - 14 * DAY_US, 10 * DAY_US - 28 * DAY_US])
    assert recency.fit(items, times, 3, 10 * DAY_US).tolist() == [1.0, 0.75, 0.0]


def test_ease_is_the_ridge_solution_of_every_item_on_the_others() -> None:
    random = np.random.default_rng(0)
    dense = (random.random((30, 6)) < 0.4).astype(np.float32)
    weights = ease.fit(csr_matrix(dense), regularisation=2.0)
    for item in range(6):
        others = [i for i in range(6) if i != item]
        x = dense[:, others].astype(np.float64)
        solved = np.linalg.solve(x.T @ x + 2.0 * np.eye(5), x.T @ dense[:, item])
        assert weights[others, item] == pytest.approx(solved, abs=1e-5)
    assert np.diag(weights).tolist() == [0] * 6


def test_ease_refuses_a_catalogue_that_does_not_fit_in_memory() -> None:
    with pytest.raises(ValueError, match="EASE is run up to 20000"):
        ease.fit(csr_matrix((3, ease.MAX_ITEMS + 1), dtype=np.float32))
