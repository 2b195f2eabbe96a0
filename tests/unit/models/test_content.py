import numpy as np

from training.interactions import DAY_US, Positives
from training.models.content import ContentConfig, fit_content

UNTIL = 100 * DAY_US


def positives(user: list[int], item: list[int], days_ago: float = 0.0) -> Positives:
    n = len(user)
    return Positives(
        UNTIL,
        max(user) + 2,
        np.array(user, np.int32),
        np.array(item, np.int32),
        np.full(n, UNTIL - int(days_ago * DAY_US)),
        np.ones(n, np.float32),
    )


def test_posterior_is_prior_plus_counts_by_hand() -> None:
    # Items 0, 1 are of category 0, item 2 of category 1. Three events: user 0 on 0, 0 on 1, 1 on 2.
    config = ContentConfig(prior_strength=2.0, fresh_boost=0.0)
    model = fit_content(
        positives([0, 0, 1], [0, 1, 2]), np.array([0, 0, 1], np.int32), 2, np.zeros(3, np.int64), config
    )
    assert np.allclose(model.prior, [2 / 3, 1 / 3], atol=1e-3)
    assert np.allclose(model.users[0], [(2 * 2 / 3 + 2) / 4, (2 / 3) / 4], atol=1e-3)
    assert np.allclose(model.users[1], [(2 * 2 / 3) / 3, (2 / 3 + 1) / 3], atol=1e-3)
    assert np.allclose(model.users[2], model.prior)  # nobody's events: the prior
    assert np.allclose(model.items, [0.5, 0.5, 1.0], atol=1e-3)


def test_old_events_weigh_less_by_half_each_half_life() -> None:
    config = ContentConfig(prior_strength=1.0, user_half_life_d=10.0, fresh_boost=0.0)
    category = np.array([0, 1], np.int32)
    model = fit_content(positives([0], [0], days_ago=20.0), category, 2, np.zeros(2, np.int64), config)
    assert np.allclose(model.users[0, 1], model.prior[1] / 1.25, atol=1e-3)


def test_a_new_item_stands_above_an_old_one_with_the_same_count() -> None:
    config = ContentConfig(fresh_boost=1.0)
    published = np.array([0, UNTIL], np.int64)
    model = fit_content(positives([0, 1], [0, 1]), np.zeros(2, np.int32), 1, published, config)
    assert model.items[1] > model.items[0]


def test_an_item_in_a_category_without_events_has_a_finite_standing() -> None:
    published = np.zeros(2, np.int64)
    model = fit_content(positives([0], [0]), np.array([0, 1], np.int32), 2, published, ContentConfig())
    assert np.isfinite(model.items).all()
    assert np.isfinite(model.users).all()
