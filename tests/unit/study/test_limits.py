"""Slices against the whole, and the policy that says how much worse one may be."""

import math
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import DataError
from contracts.quality import QualityPolicy, SliceLimits
from training.evaluation import slices
from training.evaluation.item_slices import OUTSIDE, score_items
from training.evaluation.limits import compare, worst
from training.evaluation.metrics import Estimate, Targets
from training.evaluation.protocol import Lists, TestSet
from training.study.checks import within_limits

WHOLE = Estimate(0.10, 0.002, 1000)
POLICY = SliceLimits(worse_by=0.5, least_users=30, limits={"country": 0.2, "item=cold (no event)": 1.0})


def verdicts(**parts: Estimate) -> dict[str, str]:
    return {p.name: p.verdict for p in compare("ndcg@10", WHOLE, parts, POLICY)}


def test_a_slice_passes_above_its_limit_fails_below_it_and_is_open_between() -> None:
    found = verdicts(good=Estimate(0.09, 0.005, 200), bad=Estimate(0.02, 0.005, 200), near=Estimate(0.05, 0.01, 200))
    assert found == {"good": "pass", "bad": "fail", "near": "inconclusive"}


def test_a_slice_with_no_events_in_the_test_is_inconclusive_and_says_so() -> None:
    nothing = Estimate.of(np.empty(0))
    (part,) = compare("ndcg@10", WHOLE, {"country=NZ": nothing}, POLICY)
    assert part.verdict == "inconclusive"
    assert part.why == "no event in the test window"
    check = within_limits([part])
    assert check.verdict == "inconclusive"
    assert "1 of them with no event in the test" in check.detail


def test_few_users_are_not_judged_however_bad_they_look() -> None:
    assert verdicts(few=Estimate(0.0, 0.0, 12)) == {"few": "inconclusive"}


def test_a_limit_of_its_own_comes_before_the_general_one() -> None:
    part = Estimate(0.07, 0.001, 400)
    found = {p.name: p.verdict for p in compare("m", WHOLE, {"country=DE": part, "device=ios": part}, POLICY)}
    assert found == {"country=DE": "fail", "device=ios": "pass"}


def test_an_exempt_slice_is_told_and_not_judged() -> None:
    (part,) = compare("m", WHOLE, {"item=cold (no event)": Estimate(0.0, 0.0, 400)}, POLICY)
    assert part.verdict == "pass"
    assert not part.judged
    assert worst([part]) is None


def test_the_worst_slice_is_named_with_its_interval() -> None:
    parts = compare("ndcg@10", WHOLE, {"a=1": Estimate(0.09, 0.01, 90), "a=2": Estimate(0.06, 0.01, 90)}, POLICY)
    low = worst(parts)
    assert low is not None
    assert low.name == "a=2"
    assert low.low == pytest.approx(0.06 - 1.96 * 0.01)
    assert "worst: a=2" in within_limits(parts).detail


def test_one_bad_figure_of_forty_by_chance_does_not_fail_a_model() -> None:
    """40 slices whose true figure is at their limit: by Bonferroni, at most one table in twenty fails."""
    random = np.random.default_rng(0)
    tables = 400
    failing = 0
    for _ in range(tables):
        drawn = {f"s={at}": Estimate(float(v), 0.005, 100) for at, v in enumerate(random.normal(0.05, 0.005, 40))}
        failing += any(p.verdict == "fail" for p in compare("m", WHOLE, drawn, POLICY))
    assert failing / tables < 0.08  # 5 %, and a binomial bound


def test_a_policy_is_read_from_toml_and_refuses_unknown_keys(tmp_path: Path) -> None:
    path = tmp_path / "quality.toml"
    path.write_text("[slices]\nworse_by = 0.3\n[slices.limits]\n'country=DE' = 0.1\n[fairness]\nenforce = true\n")
    policy = QualityPolicy.read(path)
    assert policy.slices.of("country=DE") == 0.1
    assert policy.slices.of("country=FR") == 0.3
    assert policy.fairness.enforce
    assert QualityPolicy.read(None) == QualityPolicy()
    path.write_text("[slice]\nworse_by = 0.3\n")
    with pytest.raises(DataError, match="slice"):
        QualityPolicy.read(path)


def test_tenure_recency_value_and_rare_cohorts() -> None:
    days = np.array([1.0, 7.0, 29.0, 90.0])
    masks = slices.bands("tenure", days, (7, 30, 90))
    assert {name: mask.tolist().index(True) for name, mask in masks.items() if mask.any()} == {
        "tenure=<7 d": 0,
        "tenure=7–30 d": 1,
        "tenure=90+ d": 3,
    }
    spend = np.array([0.0, *range(1, 31)])
    values = slices.value_bands(spend, spend)
    assert [int(mask.sum()) for mask in values.values()] == [1, 10, 10, 10, 2]
    assert slices.value_bands(np.zeros(3), np.zeros(3)) == {}
    everybody = ["DE"] * 199 + ["NZ"]
    assert slices.rare("country", ["DE", "NZ"], everybody)["cohort=rare country"].tolist() == [False, True]
    assert [n for n, m in slices.absent("country", ["DE"], everybody).items() if not m.any()] == ["country=NZ"]


def test_items_are_head_middle_tail_and_cold() -> None:
    masks = slices.item_popularity(np.array([50, 30, 15, 5, 0]))
    assert {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()} == {
        "item_popularity=head": [0],
        "item_popularity=middle": [1, 2],
        "item_popularity=tail": [3],
        "item=cold (no event)": [4],
    }


def test_recall_by_group_of_items_counts_only_wishes_for_them() -> None:
    # Two users; catalogue of 4. User 0 wishes 0 and 3, user 1 wishes 1 and one outside the catalogue (7).
    test = TestSet(np.array([0, 1]), Targets.of(np.array([0, 0, 1, 1]), np.array([0, 3, 1, 7]), 2), 4)
    lists = Lists(np.array([[0, 1, 2], [0, 2, 3]]), np.array([[0, 3, -1], [1, 2, -1]]), {"graph": np.array([[3], [1]])})
    groups = {"item=a": np.array([True, True, False, False]), "item=b": np.array([False, False, False, True])}
    found = score_items(lists, test, groups)
    assert found["item=a"]["recall@10"] == Estimate.of(np.array([1.0, 0.0]))
    assert found["item=b"]["recall@500"].value == 1.0
    assert found["item=b"]["recall@500"].n == 1
    assert found["item=b"]["recall@500:graph"].value == 1.0
    assert found[OUTSIDE]["recall@10"].value == 0.0
    assert math.isnan(score_items(lists, test, {"none": np.zeros(4, bool)})["none"]["recall@10"].value)
