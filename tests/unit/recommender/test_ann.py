"""Approximate search against exact search, with exclusions."""

import functools

import faiss
import numpy as np
import pytest

from bentos.recommender.ann import NearestItems

RNG = np.random.default_rng(5)
VECTORS = RNG.standard_normal((3_000, 16)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


@functools.cache
def indexes() -> dict[str, faiss.Index]:
    flat = faiss.IndexFlatIP(16)
    flat.add(VECTORS)
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(16), 16, 16, faiss.METRIC_INNER_PRODUCT)
    ivf.train(VECTORS)
    ivf.add(VECTORS)
    ivf.nprobe = 16
    hnsw = faiss.IndexHNSWFlat(16, 32, faiss.METRIC_INNER_PRODUCT)
    hnsw.hnsw.efSearch = 400
    hnsw.add(VECTORS)
    return {"flat": flat, "ivf": ivf, "hnsw": hnsw}


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_an_index_finds_what_exact_search_finds_and_nothing_blocked(kind: str) -> None:
    exact = NearestItems(VECTORS)
    approximate = NearestItems(VECTORS, indexes()[kind], exact_up_to=0)
    found = 0
    for query in VECTORS[:20]:
        blocked = RNG.random(len(VECTORS)) < 0.3
        wanted, got = exact.search(query, blocked, 50), approximate.search(query, blocked, 50)
        assert not blocked[wanted.items].any()
        assert not blocked[got.items].any()
        assert len(got.items) == len(set(got.items.tolist())) == 50
        assert (np.diff(got.scores) <= 0).all()
        assert np.allclose(got.scores, VECTORS[got.items] @ query, atol=1e-5)
        found += len(set(wanted.items.tolist()) & set(got.items.tolist()))
    assert found / (20 * 50) >= 0.99


@pytest.mark.parametrize("exact_up_to", [0, 10_000])
def test_with_all_but_three_blocked_three_are_found(exact_up_to: int) -> None:
    blocked = np.ones(len(VECTORS), np.bool_)
    blocked[[4, 8, 1_000]] = False
    nearest = NearestItems(VECTORS, indexes()["flat"], exact_up_to)
    assert sorted(nearest.search(VECTORS[0], blocked, 50).items.tolist()) == [4, 8, 1_000]


def test_an_index_over_other_vectors_is_refused() -> None:
    with pytest.raises(ValueError, match="3000 × 16"):
        NearestItems(VECTORS[:10], indexes()["flat"])


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_where_all_that_is_near_is_blocked_the_quota_is_filled_from_farther_off(kind: str) -> None:
    exact = NearestItems(VECTORS)
    index = faiss.clone_index(indexes()[kind])
    if kind == "ivf":
        index.nprobe = 1  # its one list holds about 190 items
    approximate = NearestItems(VECTORS, index, exact_up_to=0)
    for query in VECTORS[:10]:
        blocked = np.zeros(len(VECTORS), np.bool_)
        blocked[exact.search(query, blocked, 600).items] = True
        got = approximate.search(query, blocked, 200)
        assert len(got.items) == 200
        assert not blocked[got.items].any()
        assert (np.diff(got.scores) <= 0).all()


def test_items_that_came_after_the_vectors_are_not_found_and_hurt_nothing() -> None:
    blocked = np.zeros(len(VECTORS) + 5, np.bool_)
    for exact_up_to in (0, 10_000):
        found = NearestItems(VECTORS, indexes()["flat"], exact_up_to).search(VECTORS[3], blocked, 20)
        assert found.items[0] == 3
        assert found.items.max() < len(VECTORS)
