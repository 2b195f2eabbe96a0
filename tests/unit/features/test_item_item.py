"""Agreement with a history, against dense matrices."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from features.item_item import DAY_US, ItemItem, agreement, latest

NOW_US = 1_700_000_000_000_000


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 30), m=st.integers(0, 12))
def test_it_is_the_product_of_a_faded_history_and_the_weights(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    dense = (rng.standard_normal((n, n)) * (rng.random((n, n)) < 0.4)).astype(np.float32)
    sparse = csr_matrix(dense)
    weights = ItemItem(sparse.indptr.astype(np.int64), sparse.indices.astype(np.int32), sparse.data)
    met = np.sort(rng.choice(n, min(m, n), replace=False)).astype(np.int32)
    age_d = rng.integers(0, 400, len(met))
    found = agreement(weights, met, NOW_US - age_d * DAY_US, NOW_US, [60.0, None])
    for row, left in zip(found, [np.exp2(-age_d / 60.0), np.ones(len(met))], strict=True):
        np.testing.assert_allclose(row, left @ dense[met], atol=1e-4)
    some = np.append(rng.permutation(n)[: n // 2], n + 3).astype(np.int32)  # and one that came after the weights
    of_some = agreement(weights, met, NOW_US - age_d * DAY_US, NOW_US, [60.0, None], of=some)
    np.testing.assert_array_equal(of_some[:, :-1], found[:, some[:-1]])
    assert not of_some[:, -1].any()


def test_the_newest_of_a_long_history_are_read_and_none_that_the_weights_do_not_know() -> None:
    met, at_us = np.arange(10, dtype=np.int32), np.array([5, 1, 9, 2, 8, 3, 7, 4, 6, 0])
    items, moments = latest(met, at_us, n_items=9, at_most=3)
    assert dict(zip(items.tolist(), moments.tolist(), strict=True)) == {2: 9, 4: 8, 6: 7}
