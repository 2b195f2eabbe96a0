"""The best of share × standing, against a full scan."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.recommender import shelves
from bentos.recommender.shelves import Shelves


def scanned(
    category: np.ndarray, standing: np.ndarray, share: np.ndarray, blocked: np.ndarray, n: int
) -> tuple[list[int], list[float]]:
    """Every product, in order; ties by row."""
    scores = share[category] * standing
    allowed = [row for row in range(len(scores)) if not blocked[row]]
    rows = sorted(allowed, key=lambda row: (-scores[row], row))[:n]
    return rows, scores[rows].tolist()


@st.composite
def worlds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, categories = draw(st.integers(0, 400)), draw(st.integers(1, 30))
    category = (categories * rng.random(n) ** draw(st.sampled_from([1, 4]))).astype(np.int32)
    coarse = draw(st.sampled_from([3, 1_000_000]))  # few values: many ties
    standing = (rng.integers(0, coarse, n) / coarse).astype(np.float32)
    share = rng.dirichlet(np.full(categories, draw(st.sampled_from([0.05, 1.0])))).astype(np.float32)
    share[rng.random(categories) < 0.1] = 0
    blocked = rng.random(n) < draw(st.sampled_from([0.0, 0.1, 0.6, 1.0]))
    best = np.argsort(-(share[category] * standing), kind="stable")
    blocked[best[: draw(st.sampled_from([0, 0, n // 2]))]] = True  # what would come first is what is blocked
    return category, standing, share, blocked


@settings(max_examples=300, deadline=None)
@given(worlds(), st.integers(0, 450), st.sampled_from([(32, 16), (4, 2), (3, 1)]))
def test_it_finds_what_a_full_scan_finds(
    world: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], n: int, shape: tuple[int, int]
) -> None:
    category, standing, share, blocked = world
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shelves, "BLOCK", shape[0])
        patch.setattr(shelves, "SHALLOW", shape[1])
        rows, scores = Shelves(category, standing).best(share, blocked, n)
    assert (rows.tolist(), scores.tolist()) == scanned(category, standing, share, blocked, n)
    assert (rows.dtype, scores.dtype) == (np.int32, np.float32)


def test_a_category_is_read_beyond_its_first_blocks_where_its_best_are_blocked() -> None:
    category = np.zeros(2_000, np.int32)
    standing = np.linspace(1, 0, 2_000, dtype=np.float32)
    blocked = np.arange(2_000) < 1_500
    rows, _ = Shelves(category, standing).best(np.ones(1, np.float32), blocked, 3)
    assert rows.tolist() == [1_500, 1_501, 1_502]
