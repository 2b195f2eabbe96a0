"""The study of a shop of six people, and what its checks say of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.quality import QualityPolicy
from tests.unit.study.shop import CONFIG, DAY_US, write_shop
from training import holdout
from training.evaluation.metrics import Estimate
from training.evaluation.protocol import Lists
from training.interactions import read_items, read_log
from training.leakage.overlap import Sides
from training.study.checks import cold_start, within_limits
from training.study.cohorts import user_cohorts, without_slices
from training.study.cold import ColdUsers
from training.study.study import Study, study

CUT, END = 10 * DAY_US, 20 * DAY_US
IDS = ("a", "b", "c", "d")
PEOPLE = [{"user_id": f"u{at}", "country": "DE" if at < 3 else "FR"} for at in range(6)]
EVENTS = [(one["user_id"], item, at) for one in PEOPLE for item, at in (("a", DAY_US), ("b", CUT + DAY_US))]
ITEMS = [{"item_id": name, "price": 2.0} for name in IDS]


def studied(folder: Path, config: str = CONFIG, items: Any = ITEMS, **more: Any) -> Study:
    """Everybody had `a`, is shown `b` and `c`, and takes `b`."""
    config_ = write_shop(folder, EVENTS, items, PEOPLE, config)
    catalogue = read_items(folder, CUT)
    log = read_log(folder, config_, catalogue, CUT)
    window = holdout.read_window(folder, config_, catalogue.catalogue, log, CUT, END)
    test = holdout.test_set(log, window, len(IDS))
    masks = user_cohorts(folder, config_, log, catalogue.catalogue, test.users)
    slates = np.tile([1, 2], (6, 1))
    answers = Lists(slates, np.tile([1, 2, -1], (6, 1)), {})
    return study(folder, config_, log, window, test, catalogue.catalogue, masks, answers, None, seed=0, **more)  # type: ignore[arg-type]


def by_country(found: Study) -> Mapping[str, float]:
    return next(one.rates for one in found.impacts if one.what == "recall@10, by country")


def test_a_group_has_a_part_in_disparate_impact_from_the_policy_s_number_of_users_on(tmp_path: Path) -> None:
    policy = QualityPolicy.model_validate({"fairness": {"least_users": 3}})
    asked = studied(tmp_path / "three", least_users=policy.fairness.least_users)
    assert by_country(asked) == {"country=DE": 1.0, "country=FR": 1.0}
    assert by_country(studied(tmp_path / "thirty")) == {}
    assert by_country(studied(tmp_path / "four", least_users=4)) == {}


def test_what_would_be_sliced_by_and_is_not_is_named_with_the_reason(tmp_path: Path) -> None:
    declared = CONFIG.replace('slices = ["country"]', 'slices = ["country", "device"]')
    found = studied(tmp_path / "shop", declared)
    assert found.lacking == {
        "device": "the users have no such column",
        "locale": "the users have no such column",
    }
    unpriced = studied(tmp_path / "unpriced", items=[{"item_id": name} for name in IDS])
    assert unpriced.lacking["value"] == "the items have no prices"
    detail = within_limits([], {**found.lacking, **unpriced.lacking}).detail
    assert "no slice by device, locale: the users have no such column" in detail
    assert "no slice by value: the items have no prices" in detail


def test_spend_is_no_slice_where_wishes_are_ratings_and_where_nothing_that_was_taken_up_has_a_price(
    tmp_path: Path,
) -> None:
    stars = CONFIG.replace('event = "purchase"', 'event = "purchase"\nmin_value = 4.0')
    config = write_shop(tmp_path / "stars", EVENTS, ITEMS, PEOPLE, stars, value=[5.0] * len(EVENTS))
    catalogue = read_items(tmp_path / "stars", CUT).catalogue
    assert without_slices(config, catalogue, {})["value"] == "wishes are ratings"
    free = studied(tmp_path / "free", items=[{"item_id": name, "price": None if name == "a" else 2.0} for name in IDS])
    assert free.lacking["value"] == "nobody took up anything that has a price"


def test_candidates_are_counted_as_a_share_of_the_catalogue(tmp_path: Path) -> None:
    assert studied(tmp_path / "shop").candidate_share == pytest.approx(2 / 4)


def with_new_items(recall: Estimate, share: float) -> Study:
    items = {"item=cold (no event)": {"recall@500": recall, "recall@10": Estimate(0.0, 0.0, recall.n)}}
    return Study(items, (), ColdUsers(0), Sides(0, 0, 0, 0), {}, share)


@pytest.mark.parametrize(
    ("recall", "share", "verdict"),
    [
        (Estimate(0.10, 0.03, 100), 0.3, "fail"),
        (Estimate(0.0, 0.0, 100), 0.3, "fail"),
        (Estimate(0.25, 0.04, 100), 0.3, "inconclusive"),  # not told from a draw
        (Estimate(0.0, 0.0, 100), 0.0025, "inconclusive"),  # a draw of 500 out of 200,000 finds none of a hundred
        (Estimate(0.10, 0.03, 20), 0.3, "inconclusive"),  # few people
        (Estimate(0.40, 0.05, 100), 0.9, "inconclusive"),  # nearly the whole catalogue: no choice to judge
        (Estimate(0.40, 0.05, 100), float("nan"), "inconclusive"),
    ],
)
def test_new_items_that_are_found_less_than_by_chance_fail(recall: Estimate, share: float, verdict: str) -> None:
    check = cold_start(with_new_items(recall, share))
    assert check.verdict == verdict
    assert ("at random bring" in check.detail) == (verdict == "fail")
