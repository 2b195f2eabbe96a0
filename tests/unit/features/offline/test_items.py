"""Expected numbers by hand; many moments against each alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.offline.items import item_features_as_of, item_features_at
from features.offline.log import open_log
from features.registry import REGISTRY

HOUR = 3_600_000_000
DAY = 24 * HOUR
T = 100 * DAY
Write = Callable[..., Path]


def test_popularity_and_trending_halve_with_their_half_lives(write: Write) -> None:
    folder = write(
        [("u", "a", T - DAY, "purchase"), ("v", "a", T - 3 * DAY, "click"), ("v", "b", T - DAY, "impression")]
    )
    found = item_features_as_of(folder, T)
    assert found["item_pop_1d"] == pytest.approx([2 / 2 + 1 / 8, 0])
    assert found["item_pop_3d"] == pytest.approx([2 * 2 ** (-1 / 3) + 1 / 2, 0])
    assert found["item_trending_score"] == pytest.approx([2 / 4 + 1 / 64, 0])
    assert found["item_pop_total"] == pytest.approx([3, 0])
    assert found["item_users_30d"] == pytest.approx([2, 0])


def test_ctr_is_shrunk_to_its_default_by_twenty_impressions(write: Write) -> None:
    rows = [(f"u{n}", "a", T - DAY + n, "impression") for n in range(30)]
    rows += [(f"u{n}", "a", T - DAY + 100 + n, "click") for n in range(6)]
    rows += [("u", "a", T - 8 * DAY, "click"), ("u", "b", T - 8 * DAY, "impression")]
    ctr = item_features_as_of(write(rows), T)["item_ctr_7d"]
    assert ctr == pytest.approx([(6 + 0.02 * 20) / (30 + 20), 0.02])


def test_more_clicks_than_impressions_is_a_rate_of_one_at_most(write: Write) -> None:
    rows = [(f"u{n}", "a", T - DAY + n, "click") for n in range(500)]
    assert item_features_as_of(write(rows), T)["item_ctr_7d"] == pytest.approx([0.02])


def test_completion_is_the_mean_share_shrunk_by_five_views(write: Write) -> None:
    rows = [
        ("u", "a", T - DAY, "completion", 1.0),
        ("v", "a", T - DAY, "completion", 0.5),
        ("u", "b", T - DAY, "click"),
    ]
    found = item_features_as_of(write(rows), T)["item_completion_rate_7d"]
    assert found == pytest.approx([(1.5 + 0.5 * 5) / 7, 0.5])


def test_an_event_at_the_very_moment_does_not_count(write: Write) -> None:
    folder = write([("u", "a", T, "click")])
    assert item_features_as_of(folder, T)["item_pop_total"] == [0]
    assert item_features_as_of(folder, T + 1)["item_pop_total"] == [1]


def test_carrying_sums_through_many_moments_equals_each_moment_alone(world: Path) -> None:
    moments = [int(day * DAY) for day in (2, 4, 4, 9.5, 17.25, 30)]
    together = item_features_at(world, moments)
    for row, moment in enumerate(moments):
        for name, column in item_features_as_of(world, moment).items():
            np.testing.assert_allclose(together[name][row], column, rtol=1e-5, atol=1e-9, err_msg=name)


def test_rows_follow_the_ids_that_are_asked_for(world: Path) -> None:
    usual = item_features_as_of(world, 20 * DAY)
    asked = item_features_as_of(world, 20 * DAY, ["i3", "no such item", "i0"])
    for name, column in asked.items():
        default = REGISTRY[name].default
        assert column[[0, 2]] == pytest.approx(usual[name][[3, 0]])
        assert column[1] == pytest.approx(default)
        assert not np.isnan(column).any()


def test_a_log_of_ten_years_neither_overflows_nor_turns_to_noise(write: Write) -> None:
    folder = write([("u", "a", 0, "click"), ("u", "a", 3650 * DAY, "click")])
    found = item_features_at(folder, [1, 3650 * DAY, 3651 * DAY])
    assert found["item_pop_1d"][:, 0] == pytest.approx([1, 0, 0.5])


def test_moments_must_ascend(world: Path) -> None:
    with pytest.raises(ValueError, match="ascend"):
        item_features_at(world, [9 * DAY, 5 * DAY])


def test_the_order_of_items_is_that_of_the_file(world: Path) -> None:
    with open_log(world) as log:
        assert log.item_ids() == [f"i{n}" for n in range(9)]
