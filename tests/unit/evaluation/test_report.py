import json
import math

import numpy as np
import pytest

from training.evaluation import slices
from training.evaluation.metrics import Targets, pad
from training.evaluation.protocol import Lists, TestSet
from training.evaluation.report import Scores, recall_curve, score, score_ranker

# Three users; targets {0, 1}, {2}, {3}.
TEST = TestSet(np.array([4, 7, 8]), Targets.of(np.array([0, 0, 1, 2]), np.array([0, 1, 2, 3]), 3), 10)
LISTS = Lists(
    slates=pad([np.array([0, 5]), np.array([6]), np.array([5, 3])], 10),
    candidates=pad([np.array([0, 1, 5]), np.array([6, 2]), np.array([5, 3])], 500),
    sources={"graph": pad([np.array([1]), np.array([6]), np.array([3])], 500)},
)


def test_every_metric_of_the_protocol_is_there_with_its_error() -> None:
    scores = score("funnel", LISTS, TEST)
    flat = scores.plain()
    for name in ("ndcg@10", "recall@10", "hit@10", "mrr@10", "map@10", "recall@500", "coverage"):
        assert flat[name] is not None
        assert flat[f"{name}_se"] is not None
    assert scores.value("recall@10") == pytest.approx((0.5 + 0 + 1) / 3)
    assert scores.value("recall@500") == pytest.approx(1.0)
    assert scores.value("recall@500:graph") == pytest.approx((0.5 + 0 + 1) / 3)
    assert scores.value("coverage") == pytest.approx(4 / 10)  # items 0, 5, 6, 3


def test_a_slice_is_the_same_figures_over_its_users() -> None:
    scores = score("funnel", LISTS, TEST, {"first two": np.array([True, True, False])})
    part = scores.slices["first two"]
    assert part["recall@10"].value == pytest.approx(0.25)
    assert part["recall@10"].n == 2
    assert part["coverage"].value == pytest.approx(3 / 10)


def test_figures_without_users_are_unknown_not_zero() -> None:
    empty = TestSet(np.empty(0, np.int64), Targets.of(np.empty(0, np.int64), np.empty(0, np.int64), 0), 10)
    scores = score("funnel", Lists(pad([], 10), pad([], 500)), empty)
    assert math.isnan(scores.value("ndcg@10"))
    assert scores.plain()["ndcg@10"] is None
    assert recall_curve(pad([], 500), empty) == {}
    json.dumps(scores.plain(), allow_nan=False)


def test_a_baseline_that_was_not_run_says_why() -> None:
    assert Scores("ease", {}, not_run="too many items").plain() == {"not_run": "too many items"}


def test_recall_by_depth_never_falls() -> None:
    curve = list(recall_curve(LISTS.candidates, TEST).values())
    assert curve == sorted(curve)


def test_ranker_figures_over_all_rows_with_errors_over_users() -> None:
    probabilities = np.array([0.9, 0.1, 0.2, 0.8], np.float32)
    ranker = score_ranker(probabilities, np.array([1, 0, 0, 1]), np.array([0, 0, 1, 1]))
    assert ranker.auc.value == 1.0
    assert ranker.auc.n == 2
    assert ranker.log_loss.value == pytest.approx(-np.mean(np.log([0.9, 0.9, 0.8, 0.8])), abs=1e-6)
    assert ranker.base_rate == 0.5


def test_a_ranker_without_rows_is_unknown() -> None:
    nothing = np.empty(0)
    assert math.isnan(score_ranker(nothing, nothing.astype(int), nothing.astype(int)).auc.value)


def test_slices_are_activity_and_the_frequent_values_of_attributes() -> None:
    masks = slices.activity(np.array([0, 1, 6, 30, 200, 300]))
    assert masks["activity=cold (<5)"].tolist() == [True, True, False, False, False, False]
    masks = slices.attribute("country", ["DE", "DE", "DE", "FR", "FR", ""])
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {
        "country=DE": 3,
        "country=FR": 2,
        "country=unknown": 1,
    }


def test_rare_values_are_one_slice() -> None:
    values = [f"v{i % 10}" for i in range(40)]
    masks = slices.attribute("x", values)
    assert sum(mask.sum() for mask in masks.values()) == 40
    assert masks["x=other"].sum() == 8
