"""The union of candidates, with figures by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.recommender.merge import merge, normalised
from bentos.recommender.types import SourceResult
from contracts.serving import SOURCES

QUOTAS = {"two_tower": 2, "graph": 1, "content": 1, "trending": 1, "item_item": 1}


def result(*pairs: tuple[int, float]) -> SourceResult:
    return SourceResult(np.array([i for i, _ in pairs], np.int32), np.array([s for _, s in pairs], np.float32))


def test_scores_are_normalised_per_source_summed_and_raised_where_two_agree() -> None:
    union = merge(
        {"two_tower": result((5, 3.0), (7, 2.0), (9, 1.0)), "trending": result((7, 40.0), (2, 20.0))}, QUOTAS, 10, 1.5
    )
    # two-tower: 5 → 1, 7 → 0.5, 9 → 0; trending: 7 → 1, 2 → 0; 7 is (0.5 + 1) × 1.5; ties by row
    assert union.items.tolist() == [7, 5, 2, 9]
    assert union.retrieval.tolist() == [2.25, 1.0, 0.0, 0.0]
    assert union.brought[0].tolist() == [True, False, False, True, False]
    assert union.by_source[0].tolist() == [0.5, 0.0, 0.0, 1.0, 0.0]
    assert np.isnan(union.score).all()


def test_each_source_keeps_its_quota_when_the_union_is_full() -> None:
    union = merge(
        {
            "two_tower": result((0, 9.0), (1, 8.0), (2, 7.9), (3, 1.0)),
            "graph": result((10, 5.0), (11, 4.9), (12, 1.0)),
            "content": result(
                (20, 1.0),
            ),
        },
        {"two_tower": 1, "graph": 1, "content": 1, "trending": 1},
        4,
        1.5,
    )
    # guaranteed: 0, 10, 20; the fourth place goes to the best of the rest: 11 has 0.975, 1 has 0.875
    assert sorted(union.items.tolist()) == [0, 10, 11, 20]


def test_a_missing_or_empty_source_never_empties_the_union() -> None:
    union = merge({"graph": result(), "trending": result((3, 1.0))}, QUOTAS, 10, 1.5)
    assert union.items.tolist() == [3]
    assert union.retrieval.tolist() == [1.0]
    assert len(merge({}, QUOTAS, 10, 1.5)) == 0


@pytest.mark.parametrize(
    ("scores", "expected"), [([4.0], [1.0]), ([2.0, 2.0], [1.0, 1.0]), ([-1.0, -3.0, -2.0], [1.0, 0.0, 0.5])]
)
def test_equal_scores_are_all_the_best_of_their_source(scores: list[float], expected: list[float]) -> None:
    assert normalised(np.array(scores, np.float32)).tolist() == expected


def by_definition(results: dict[str, SourceResult], total: int, agreement: float) -> list[tuple[int, float]]:
    """Item by item, with dictionaries: which are in, and their merged scores."""
    scores: dict[int, np.float32] = {}
    times: dict[int, int] = {}
    sure: set[int] = set()
    for name in SOURCES:
        if name not in results or not len(results[name].items):
            continue
        items = results[name].items.tolist()
        for item, score in zip(items, normalised(results[name].scores), strict=True):
            scores[item] = np.float32(scores.get(item, np.float32(0)) + score)
            times[item] = times.get(item, 0) + 1
        sure.update(items[: QUOTAS[name]])
    merged = {i: np.float32(s * np.float32(agreement)) if times[i] >= 2 else s for i, s in scores.items()}
    inside = sorted(merged, key=lambda i: (i not in sure, -merged[i], i))[:total]
    return [(i, float(merged[i])) for i in sorted(inside, key=lambda i: (-merged[i], i))]


def some_result(seed: int, n: int, coarse: int) -> SourceResult:
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.integers(0, coarse, n) / coarse)[::-1]
    return SourceResult(rng.permutation(40)[:n].astype(np.int32), scores.astype(np.float32))


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(SOURCES),
        st.builds(some_result, st.integers(0, 10_000), st.integers(0, 40), st.sampled_from([2, 1_000])),
    ),
    st.integers(0, 60),
)
def test_the_union_is_what_its_definition_says(results: dict[str, SourceResult], total: int) -> None:
    union = merge(results, QUOTAS, total, 1.5)
    assert list(zip(union.items.tolist(), union.retrieval.tolist(), strict=True)) == by_definition(results, total, 1.5)
    for column, name in enumerate(SOURCES):
        brought = set(results[name].items.tolist()) if name in results else set()
        assert union.brought[:, column].tolist() == [item in brought for item in union.items.tolist()]
