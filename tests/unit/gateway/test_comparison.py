import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from bentos.gateway.comparison import compare, spearman
from contracts.http import RecommendedItem


def slate(**scores: float) -> list[RecommendedItem]:
    return [RecommendedItem(i, s, n + 1, []) for n, (i, s) in enumerate(scores.items())]


def test_overlap_and_correlation_by_hand():
    """4 common of 6: Jaccard 4/6. Ranks of a, b, c, d: 4 3 2 1 and 3 4 2 1, Σd² = 2: 1 − 6·2/(4·15) = 0.8."""
    ours = slate(a=0.9, b=0.8, c=0.7, d=0.6, e=0.5)
    theirs = slate(b=9.0, a=8.0, c=7.0, d=6.0, f=5.0)
    found = compare(ours, theirs, 12.5)
    assert (found.common, found.ms_served) == (4, 12.5)
    assert found.overlap == pytest.approx(4 / 6)
    assert found.correlation == pytest.approx(0.8)


def test_too_few_common_items_and_constant_scores_have_no_correlation():
    assert compare(slate(a=1, b=2), slate(a=1, b=2), 0).correlation is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None
    assert compare([], [], 0).overlap == 1.0
    assert compare(slate(a=1), [], 0).overlap == 0.0


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=30))
def test_it_is_scipys_spearman_with_ties(pairs):
    x, y = zip(*pairs, strict=True)
    found = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(np.clip(spearmanr(x, y).statistic, -1, 1), abs=1e-9)


def test_the_distance_of_the_scores_by_hand() -> None:
    served = slate(a=0.1, b=0.2, c=0.3, d=0.4)
    assert compare(slate(e=0.1, f=0.2, g=0.3, h=0.4), served, 0).shift == 0.0  # other items, the same scores
    assert compare(slate(e=1.1, f=1.2), served, 0).shift == 1.0
    # Up to 0.2 the one has 1 of 4 below, the other 2 of 4: a quarter apart, and nowhere more.
    assert compare(slate(e=0.15, f=0.25, g=0.3, h=0.4), served, 0).shift == pytest.approx(0.25)
    assert compare([], served, 0).shift is None
