"""Disparate impact by hand, and its verdicts."""

import math

import numpy as np
import pytest

from contracts.quality import FairnessLimits
from training.evaluation.fairness import (
    Impact,
    Judged,
    exposure,
    exposure_by_users,
    impact,
    recall_by_items,
    recall_by_users,
)
from training.evaluation.metrics import Targets
from training.evaluation.protocol import TestSet
from training.study.checks import fair

JUDGED = Judged(least_users=30)


def two_wishes(users: int) -> TestSet:
    """Everybody wishes for items 0 (group a) and 1 (group b); a catalogue of 3."""
    owners = np.repeat(np.arange(users), 2)
    return TestSet(np.arange(users), Targets.of(owners, np.tile([0, 1], users), users), 3)


GROUPS = {"a": np.array([True, False, False]), "b": np.array([False, True, False])}


def test_exposure_is_discounted_by_place_and_divided_by_wishes() -> None:
    slates = np.tile([0, 2, 1], (40, 1))  # a first, b third
    found = exposure(slates, two_wishes(40), GROUPS, JUDGED)
    assert found.rates["a"] == pytest.approx(1.0)
    assert found.rates["b"] == pytest.approx(0.5)  # 1 / log2(4)
    assert found.ratio == pytest.approx(0.5)
    assert (found.least, found.greatest) == ("b", "a")


def test_recall_by_creators_and_by_segments() -> None:
    slates = np.concatenate([np.tile([0, 1], (40, 1)), np.tile([0, 2], (40, 1))])
    test = two_wishes(80)
    items = recall_by_items(slates, test, GROUPS, JUDGED)
    assert items.rates == {"a": 1.0, "b": 0.5}
    segments = {"country=DE": np.arange(80) < 40, "country=FR": np.arange(80) >= 40}
    users = recall_by_users(slates, test, "country", segments, JUDGED)
    assert users.ratio == pytest.approx(0.5)
    assert users.low <= 0.5 <= users.high


def test_whose_items_a_segment_is_shown_is_compared_by_its_own_wishes_for_them() -> None:
    """Half of the people find b in the first place, half in the third; everybody wished for b once."""
    slates = np.concatenate([np.tile([1, 0, 2], (40, 1)), np.tile([0, 2, 1], (40, 1))])
    segments = {"country=DE": np.arange(80) < 40, "country=FR": np.arange(80) >= 40}
    found = exposure_by_users(slates, two_wishes(80), "country", segments, GROUPS["b"], JUDGED)
    assert found.rates == pytest.approx({"country=DE": 1.0, "country=FR": 0.5})  # 1 / log2(4)
    assert (found.least, found.greatest) == ("country=FR", "country=DE")
    assert found.what == "exposure per wish of small creators, by country"


def test_one_group_alone_has_no_ratio() -> None:
    found = recall_by_users(np.tile([0], (40, 1)), two_wishes(40), "x", {"x=1": np.ones(40, bool)}, JUDGED)
    assert math.isnan(found.ratio)
    assert fair([found], FairnessLimits()).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("low", "high", "enforce", "verdict"),
    [
        (0.85, 0.99, False, "pass"),
        (0.4, 0.6, False, "inconclusive"),
        (0.4, 0.6, True, "fail"),
        (0.7, 0.9, True, "inconclusive"),
    ],
)
def test_four_fifths_is_told_and_fails_only_where_the_policy_says_so(
    low: float, high: float, enforce: bool, verdict: str
) -> None:
    one = Impact(
        "recall@10, by country", {"a": 1.0, "b": 0.5}, {"a": 40, "b": 40}, (low + high) / 2, low, high, "b", "a"
    )
    assert fair([one], FairnessLimits(enforce=enforce)).verdict == verdict


def hits(seed: int, users: list[int], rates: list[float], together: int = 1) -> Impact:
    """Groups of so many users, of whom so many find what they wish for."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(users)), users)
    own = (random.random(len(group)) < np.array(rates)[group]).astype(float)
    masks = {f"group={at}": group == at for at in range(len(users))}
    above = {name: np.where(mask, own, 0.0) for name, mask in masks.items()}
    below = {name: mask.astype(float) for name, mask in masks.items()}
    return impact("recall@10, by group", above, below, Judged(30, together))


@pytest.mark.parametrize("users", [[60] * 3, [60] * 4, [60] * 8, [30, 30, 2_000]], ids=lambda users: f"{len(users)}")
@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_equal_groups_are_not_surely_unequal_however_many_they_are(users: list[int], rate: float) -> None:
    """Least over greatest, drawn anew in each resample, was surely below four fifths in all draws of eight."""
    found = [hits(seed, users, [rate] * len(users)) for seed in range(300)]
    assert np.mean([one.high < 0.8 for one in found]) <= 0.05
    assert np.mean([one.ratio < 0.8 for one in found]) > 0.4  # which is what chance alone makes of the ratio


def test_groups_at_the_limit_are_seldom_surely_on_either_side() -> None:
    found = [hits(seed, [300] * 4, [0.32, 0.4, 0.4, 0.4]) for seed in range(300)]
    assert np.mean([one.high < 0.8 for one in found]) <= 0.05
    assert np.mean([one.low >= 0.8 for one in found]) <= 0.05
    assert np.mean([one.low <= 0.8 <= one.high for one in found]) >= 0.95


@pytest.mark.parametrize(
    ("rates", "power"),
    [
        ([0.25, 0.5, 0.5, 0.5], 0.95),  # one has half of what the others have
        ([0.25, 0.25, 0.25, 0.5], 0.95),  # or the double: no group is far from the mean of the others
        ([0.0, 0.1, 0.1, 0.1], 0.95),  # no hit at all: no error of its own
    ],
)
def test_a_group_at_half_the_rate_of_others_is_found(rates: list[float], power: float) -> None:
    found = [hits(seed, [300] * 4, rates) for seed in range(200)]
    assert np.mean([one.high < 0.8 for one in found]) >= power


def test_equal_rates_of_many_users_are_surely_above_four_fifths() -> None:
    found = hits(0, [5_000] * 3, [0.5] * 3)
    assert found.low >= 0.8
    assert fair([found], FairnessLimits()).verdict == "pass"


def test_of_many_ratios_each_has_to_be_further_below() -> None:
    alone, one_of_many = hits(0, [300] * 3, [0.2, 0.4, 0.4]), hits(0, [300] * 3, [0.2, 0.4, 0.4], together=20)
    assert alone.low == one_of_many.low < alone.ratio < alone.high < one_of_many.high


def test_a_set_of_ratios_of_equal_groups_seldom_has_one_surely_below() -> None:
    sets = [[hits(20 * seed + at, [60] * 4, [0.3] * 4, together=20) for at in range(20)] for seed in range(100)]
    assert np.mean([any(one.high < 0.8 for one in several) for several in sets]) <= 0.05


def test_places_that_groups_take_from_each_other_are_compared_as_such() -> None:
    """Everybody is shown ten items of two groups: what one has the other has not."""
    random = np.random.default_rng(0)
    items = np.arange(100)
    groups = {"a": items < 50, "b": items >= 50}
    below = 0
    for _ in range(200):
        slates = np.array([random.permutation(100)[:10] for _ in range(60)])
        owners, wishes = np.repeat(np.arange(60), 4), random.integers(0, 100, 240)
        test = TestSet(np.arange(60), Targets.of(owners, wishes, 60), 100)
        below += exposure(slates, test, groups, JUDGED).high < 0.8
    assert below / 200 <= 0.05
