"""Where a new item comes in among those of its category."""

import numpy as np

from features.standing import DAY_US, entry_standing

NOW = 1_000 * DAY_US


def stand(standing: list[float], category: list[int], ages_d: list[float]) -> list[float]:
    published = np.array([NOW - age * DAY_US for age in [0.0] * len(standing) + ages_d], np.int64)
    return entry_standing(np.array(standing, np.float32), np.array(category, np.int32), published, NOW).tolist()


def test_the_newest_stands_beside_the_best_of_its_category_and_the_next_beside_the_next() -> None:
    known = [0.5, 0.25, 1.0, 0.125]
    # three new ones in category 0, the last of them the newest; one in category 1
    out = stand(known, [0, 0, 1, 0, 0, 0, 0, 1], [0.002, 0.001, 0.0, 0.0])
    np.testing.assert_allclose(out, [*known, 0.125, 0.25, 0.5, 1.0], rtol=1e-3)


def test_it_halves_every_two_weeks() -> None:
    np.testing.assert_allclose(stand([0.5, 0.5], [0, 0, 0, 0], [14.0, 28.0])[2:], [0.25, 0.125], rtol=1e-6)


def test_more_new_items_than_old_ones_stand_beside_the_last() -> None:
    assert stand([0.5, 0.25], [0] * 5, [0.0, 0.0, 0.0])[2:] == [0.5, 0.25, 0.25]


def test_a_category_without_items_gives_the_median_of_all_and_an_empty_catalogue_one() -> None:
    assert stand([0.1, 0.2, 0.9], [0, 0, 0, 1], [0.0])[3:] == [np.float32(0.2)]
    assert stand([], [0], [0.0]) == [1.0]
