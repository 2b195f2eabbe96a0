import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bentos.recommender.top import top

VALUES = st.sampled_from([-np.inf, np.nan, -2.0, 0.0, 0.5, 0.5, 1.0, 3.0])


@given(arrays(np.float32, st.integers(0, 30), elements=VALUES.map(np.float32)), st.integers(0, 35))
def test_the_best_n_are_those_of_a_full_sort_with_ties_by_position(scores: np.ndarray, n: int) -> None:
    expected = sorted((i for i in range(len(scores)) if scores[i] > -np.inf), key=lambda i: (-scores[i], i))[:n]
    assert top(scores, n).tolist() == expected
