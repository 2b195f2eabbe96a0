"""Disparate impact by hand, and its verdicts."""

import math

import numpy as np
import pytest

from contracts.quality import FairnessLimits
from training.evaluation.fairness import Impact, exposure, exposure_by_users, recall_by_items, recall_by_users
from training.evaluation.metrics import Targets
from training.evaluation.protocol import TestSet
from training.study.checks import fair


def two_wishes(users: int) -> TestSet:
    """Everybody wishes for items 0 (group a) and 1 (group b); a catalogue of 3."""
    owners = np.repeat(np.arange(users), 2)
    return TestSet(np.arange(users), Targets.of(owners, np.tile([0, 1], users), users), 3)


GROUPS = {"a": np.array([True, False, False]), "b": np.array([False, True, False])}


def test_exposure_is_discounted_by_place_and_divided_by_wishes() -> None:
    slates = np.tile([0, 2, 1], (40, 1))  # a first, b third
    found = exposure(slates, two_wishes(40), GROUPS, least_users=30, seed=0)
    assert found.rates["a"] == pytest.approx(1.0)
    assert found.rates["b"] == pytest.approx(0.5)  # 1 / log2(4)
    assert found.ratio == pytest.approx(0.5)
    assert (found.least, found.greatest) == ("b", "a")


def test_recall_by_creators_and_by_segments() -> None:
    slates = np.concatenate([np.tile([0, 1], (40, 1)), np.tile([0, 2], (40, 1))])
    test = two_wishes(80)
    items = recall_by_items(slates, test, GROUPS, least_users=30, seed=0)
    assert items.rates == {"a": 1.0, "b": 0.5}
    segments = {"country=DE": np.arange(80) < 40, "country=FR": np.arange(80) >= 40}
    users = recall_by_users(slates, test, "country", segments, least_users=30, seed=0)
    assert users.ratio == pytest.approx(0.5)
    assert users.low <= 0.5 <= users.high


def test_whose_items_a_segment_is_shown_is_compared_by_its_own_wishes_for_them() -> None:
    """Half of the people find b in the first place, half in the third; everybody wished for b once."""
    slates = np.concatenate([np.tile([1, 0, 2], (40, 1)), np.tile([0, 2, 1], (40, 1))])
    segments = {"country=DE": np.arange(80) < 40, "country=FR": np.arange(80) >= 40}
    found = exposure_by_users(slates, two_wishes(80), "country", segments, GROUPS["b"], least_users=30, seed=0)
    assert found.rates == pytest.approx({"country=DE": 1.0, "country=FR": 0.5})  # 1 / log2(4)
    assert (found.least, found.greatest) == ("country=FR", "country=DE")
    assert found.what == "exposure per wish of small creators, by country"


def test_one_group_alone_has_no_ratio() -> None:
    found = recall_by_users(
        np.tile([0], (40, 1)), two_wishes(40), "x", {"x=1": np.ones(40, bool)}, least_users=30, seed=0
    )
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
