"""The weights of the source: those of the baseline, the largest of each item."""

import numpy as np
import pytest

from training.baselines import decayed_ease
from training.baselines.past import Past, history
from training.interactions import DAY_US, Positives
from training.models.item_item import ItemItemConfig, fit_item_item

NOW_US = 1_700_000_000_000_000
USERS, ITEMS = 40, 25


@pytest.fixture
def positives() -> Positives:
    rng = np.random.default_rng(4)
    n = 600
    user, item = rng.integers(0, USERS, n), rng.integers(0, ITEMS, n)
    at_us = NOW_US - rng.integers(1, 300 * DAY_US, n)
    return Positives(NOW_US, USERS, user.astype(np.int32), item.astype(np.int32), at_us, np.ones(n, np.float32))


def test_with_room_for_all_they_are_those_of_decayed_ease(positives: Positives) -> None:
    fitted = fit_item_item(positives, ITEMS, ItemItemConfig())
    nothing = np.full(ITEMS, np.nan, np.float32), np.full(ITEMS, -1, np.int32), np.full(ITEMS, -1, np.int32)
    expected = decayed_ease.fit(Past(positives, *nothing))
    owner = np.repeat(np.arange(ITEMS), np.diff(fitted.indptr))
    np.testing.assert_array_equal(fitted.weights, expected[owner, fitted.items])
    assert len(fitted.items) == np.count_nonzero(expected)


def test_of_more_than_fit_the_farthest_from_zero_are_kept(positives: Positives) -> None:
    every = fit_item_item(positives, ITEMS, ItemItemConfig())
    some = fit_item_item(positives, ITEMS, ItemItemConfig(neighbours=5))
    assert (np.diff(some.indptr) == 5).all()
    for row in range(ITEMS):
        here = slice(every.indptr[row], every.indptr[row + 1])
        kept = some.weights[some.indptr[row] : some.indptr[row + 1]]
        largest = np.sort(np.abs(every.weights[here]))[-5:]
        np.testing.assert_array_equal(np.sort(np.abs(kept)), largest)


def test_a_catalogue_too_large_for_ease_has_neighbours(positives: Positives) -> None:
    fitted = fit_item_item(positives, ITEMS, ItemItemConfig(ease_up_to=10, neighbours=6))
    assert np.diff(fitted.indptr).max() <= 6
    assert (fitted.weights > 0).all()
    met = history(positives, ITEMS)
    assert fitted.items.max() < met.shape[1]
