"""Indexes against exact search."""

import numpy as np
import pytest

from training import nearest
from training.nearest import build_index, exact_top, overlap


def unit(n: int, seed: int, dimension: int = 16) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, dimension)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_a_small_index_is_exact() -> None:
    vectors, queries = unit(500, 1), unit(20, 2)
    index, report = build_index(vectors, queries, seed=0)
    assert report.kind == "flat"
    assert overlap(exact_top(vectors, queries, 200), index.search(queries, 200)[1]) == 1.0


def test_a_large_index_probes_until_recall_is_reached() -> None:
    vectors, queries = unit(4000, 1), unit(30, 2)
    index, report = build_index(vectors, queries, seed=0, flat_up_to=1000)
    assert report.kind == "ivf"
    assert index.nprobe == report.nprobe  # the index carries it
    assert report.recall_at_200 >= 0.99
    assert overlap(exact_top(vectors, queries, 200), index.search(queries, 200)[1]) == report.recall_at_200


def test_exact_search_in_steps_is_exact_search(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = unit(300, 1), unit(11, 2)
    whole = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :7]
    for cells in (1, 900, 1 << 20):
        monkeypatch.setattr(nearest, "EXACT_CELLS", cells)
        assert exact_top(vectors, queries, 7).tolist() == whole.tolist()


def test_overlap_by_hand() -> None:
    assert overlap(np.array([[0, 1], [2, 3]]), np.array([[1, 0], [3, 9]])) == 0.75
