"""Popularity, recency, decay, BM25 and ranks by hand; EASE against the definition of its optimum."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from training.baselines import blend, decayed_ease, ease, item_knn, popularity, recency
from training.baselines.past import Past, best, top
from training.interactions import Positives

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
    with pytest.raises(ease.TooManyItems, match="EASE is run up to 20000"):
        ease.fit(csr_matrix((3, ease.MAX_ITEMS + 1), dtype=np.float32))


def past_of(events: list[tuple[int, int, float]], n_items: int, now_d: float = 100.0) -> Past:
    """Events (user, item, days before now), at day `now_d`."""
    user, item, ago = (np.array(column) for column in zip(*sorted(events), strict=True))
    stamps = np.round((now_d - ago) * DAY_US).astype(np.int64)
    positives = Positives(
        int(now_d * DAY_US),
        int(user.max()) + 1,
        user.astype(np.int32),
        item.astype(np.int32),
        stamps,
        np.ones(len(user), np.float32),
    )
    unknown = np.full(n_items, -1, np.int32)
    return Past(positives, np.ones(n_items, np.float32), unknown, unknown)


def test_a_history_keeps_what_is_left_of_the_last_event_on_an_item() -> None:
    past = past_of([(0, 1, 60.0), (0, 1, 120.0), (0, 2, 0.0)], 3)
    assert past.history(60.0).toarray() == pytest.approx(np.array([[0, 0.5, 1]]))
    assert past.history().toarray().tolist() == [[0, 1, 1]]


def test_what_was_known_earlier_holds_nothing_from_the_moment_on() -> None:
    past = past_of([(0, 0, 30.0), (0, 1, 10.0), (1, 1, 9.9)], 2)
    then = past.before(90 * DAY_US)  # ten days ago: the event of that very moment is not before it
    assert then.history().toarray().tolist() == [[1, 0], [0, 0]]
    assert then.popularity(20.0).tolist() == pytest.approx([0.5, 0.0])


def test_new_items_of_a_window_are_the_protocols() -> None:
    events = [(0, 0, 30.0), (0, 0, 5.0), (0, 1, 5.0), (0, 2, 1.0), (1, 1, 5.0)]
    test = past_of(events, 3).new_items(90 * DAY_US, 98 * DAY_US)
    assert test.users.tolist() == [0]  # user 1 was not seen before
    assert test.targets.items.tolist() == [1]  # item 0 was met, item 2 comes after the window


def test_decayed_ease_is_ease_on_decayed_interactions() -> None:
    past = past_of([(0, 0, 0.0), (0, 1, 120.0), (1, 1, 240.0)], 2)
    # X = [[1, 1/2], [0, 1/4]]; G = X'X + 300·I = [[301, 1/2], [1/2, 300 + 5/16]]; B[i, j] = G[i, j] / (G[i, i])
    weights = decayed_ease.fit(past, 300.0)
    assert weights[0, 1] == pytest.approx(0.5 / 301.0, rel=1e-5)
    assert weights[1, 0] == pytest.approx(0.5 / 300.3125, rel=1e-5)


def test_bm25_weighs_rare_buyers_and_short_documents_more() -> None:
    met = csr_matrix(np.array([[1, 1, 0, 0], [0, 1, 0, 0]], np.float32))
    weights = item_knn.bm25(met, k1=1.0, b=0.5).toarray()
    # lengths 1, 2, 0, 0, mean 0.75; norm of items 0 and 1: 0.5 + 0.5·(1 or 2)/0.75; rarity: ln 4 − ln 3, ln 4 − ln 2
    norm = [0.5 + 0.5 / 0.75, 0.5 + 1.0 / 0.75]
    assert weights[0, 0] == pytest.approx(2 / (norm[0] + 1) * np.log(4 / 3), rel=1e-5)
    assert weights[0, 1] == pytest.approx(2 / (norm[1] + 1) * np.log(4 / 3), rel=1e-5)
    assert weights[1, 1] == pytest.approx(2 / (norm[1] + 1) * np.log(2), rel=1e-5)


def test_neighbours_are_the_largest_of_the_dense_product() -> None:
    random = np.random.default_rng(0)
    weighted = csr_matrix(np.where(random.random((40, 12)) < 0.4, random.random((40, 12)), 0).astype(np.float32))
    dense = (weighted.T @ weighted).toarray()
    np.fill_diagonal(dense, 0)
    kept = item_knn.neighbours(weighted, k=3).toarray()
    for row in range(12):
        strongest = np.argsort(-dense[row], kind="stable")[:3]
        assert set(np.flatnonzero(kept[row])) == set(strongest)
        assert kept[row, strongest] == pytest.approx(dense[row, strongest], rel=1e-5)


def test_neighbours_of_several_blocks_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    weighted = csr_matrix((random.random((30, 11)) < 0.5).astype(np.float32))
    whole = item_knn.neighbours(weighted, k=4).toarray()
    monkeypatch.setattr(item_knn, "BLOCK", 3)
    assert item_knn.neighbours(weighted, k=4).toarray().tolist() == whole.tolist()


def test_ranks_put_what_was_met_last() -> None:
    met = csr_matrix(np.array([[0, 1, 0, 0]], np.float32))
    assert blend.ranks(np.array([[0.1, 9.0, 0.3, 0.3]]), met).tolist() == [[2, 3, 0, 1]]


def test_the_blend_adds_the_places_of_both_orders() -> None:
    # User 0 met item 0; items 0 and 1 go together; item 2 is what everybody takes now.
    old = [(user, item, 50.0) for user in range(1, 6) for item in (0, 1)]
    past = past_of([(0, 0, 40.0), *old, (7, 2, 0.0), (8, 2, 0.0), (9, 3, 1.0)], 4)
    fitted = blend.fit(past)
    scores = fitted.scores(np.array([0]))
    # Agreement among items 1, 2, 3: places 0, 1, 2; popularity of half-life 3 d: places 2, 0, 1. Item 0 is last twice.
    assert scores.tolist() == [[-6, -2, -1, -3]]
    assert best(scores, fitted.met[[0]])[0, :4].tolist() == [2, 1, 3, -1]


def test_the_blend_stands_on_the_sparse_neighbours_where_ease_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    past = past_of([(0, 0, 1.0), (1, 0, 1.0), (1, 1, 2.0), (2, 2, 3.0)], 3)
    monkeypatch.setattr(blend, "MAX_EASE_ITEMS", 2)
    fitted = blend.fit(past)
    assert fitted.source == "item_knn"
    assert fitted.scores(np.array([0])).shape == (1, 3)


def test_ties_at_the_last_place_are_decided_by_row() -> None:
    assert top(np.array([1.0, 2.0, 1.0, 1.0]), np.array([1]), 2).tolist() == [0, 2]
