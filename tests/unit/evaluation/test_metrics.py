"""Expected numbers are worked out by hand from the formulas in CONTRACTS.md; each test shows the arithmetic."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as reference_log_loss
from sklearn.metrics import roc_auc_score

from training.evaluation import metrics
from training.evaluation.metrics import Estimate, Targets, pad


def targets_of(*lists: list[int]) -> Targets:
    users = np.concatenate([np.full(len(items), user) for user, items in enumerate(lists)]).astype(np.int64)
    return Targets.of(users, np.concatenate([np.array(items, np.int64) for items in lists]), len(lists))


# One user, targets {1, 2, 9}; the list is 1, 5, 2: hits at places 1 and 3.
LISTS = np.array([[1, 5, 2] + [-1] * 7])
TARGETS = targets_of([1, 2, 9])


def test_ndcg_divides_by_an_ideal_of_min_k_and_targets_hits() -> None:
    gained = 1 / math.log2(2) + 1 / math.log2(4)  # 1.5
    ideal = 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)  # 3 targets: 2.13093
    assert metrics.per_user(LISTS, TARGETS)["ndcg@10"][0] == pytest.approx(gained / ideal)
    assert gained / ideal == pytest.approx(0.703918, abs=1e-6)


def test_ndcg_of_ten_hits_out_of_twenty_targets_is_one() -> None:
    lists = np.arange(10)[None, :]
    assert metrics.per_user(lists, targets_of(list(range(20))))["ndcg@10"][0] == pytest.approx(1.0)


def test_recall_is_hits_over_all_targets_even_when_there_are_more_than_k() -> None:
    lists = np.arange(10)[None, :]
    assert metrics.per_user(lists, targets_of(list(range(20))))["recall@10"][0] == pytest.approx(10 / 20)
    assert metrics.per_user(LISTS, TARGETS)["recall@10"][0] == pytest.approx(2 / 3)


def test_hit_mrr_and_map_of_the_first_ten() -> None:
    values = metrics.per_user(LISTS, TARGETS)
    assert values["hit@10"][0] == 1
    assert values["mrr@10"][0] == 1
    assert values["map@10"][0] == pytest.approx((1 / 1 + 2 / 3) / 3)


def test_the_first_hit_at_place_four_gives_a_quarter() -> None:
    values = metrics.per_user(np.array([[7, 8, 6, 3]]), targets_of([3]))
    assert values["mrr@10"][0] == pytest.approx(1 / 4)
    assert values["ndcg@10"][0] == pytest.approx(1 / math.log2(5))
    assert values["map@10"][0] == pytest.approx(1 / 4)


def test_a_hit_at_place_eleven_is_no_hit_at_ten() -> None:
    lists = np.arange(11)[None, :]
    assert all(value[0] == 0 for value in metrics.per_user(lists, targets_of([10])).values())


def test_an_empty_list_scores_zero() -> None:
    lists = np.full((1, 10), -1)
    assert all(value[0] == 0 for value in metrics.per_user(lists, targets_of([0])).values())


def test_padding_never_hits_and_users_do_not_share_targets() -> None:
    hit = metrics.hits(np.array([[0, -1], [1, 0]]), targets_of([1], [0]))
    assert hit.tolist() == [[False, False], [False, True]]


def test_a_repeated_target_counts_once() -> None:
    targets = Targets.of(np.array([0, 0, 0]), np.array([4, 4, 5]), 1)
    assert targets.counts.tolist() == [2]
    assert targets.items.tolist() == [4, 5]


def test_targets_of_some_users_keep_their_items() -> None:
    assert targets_of([3], [1, 2], [7]).take(np.array([1, 2])).items.tolist() == [1, 2, 7]


def test_the_standard_error_is_that_of_a_mean() -> None:
    estimate = Estimate.of(np.array([0.0, 1.0, 1.0, 0.0]))
    assert estimate.value == 0.5
    assert estimate.se == pytest.approx(math.sqrt(1 / 3) / 2)  # variance 4 · 0.25 / 3, over √4


def test_one_user_has_no_standard_error_and_none_has_no_mean() -> None:
    assert math.isnan(Estimate.of(np.array([0.3])).se)
    assert math.isnan(Estimate.of(np.empty(0)).value)


def test_coverage_is_the_share_of_items_shown_and_its_error_the_jackknife() -> None:
    # Users see {0, 1}, {1, 2}, {1}; of 10 items 3 are shown. Without user 0: {1, 2}; without 1: {0, 1}; without 2: all.
    lists = pad([np.array([0, 1]), np.array([1, 2]), np.array([1])], 10)
    estimate = metrics.coverage(lists, 10)
    left_out = np.array([0.2, 0.2, 0.3])
    assert estimate.value == pytest.approx(0.3)
    assert estimate.se == pytest.approx(math.sqrt(2 / 3 * ((left_out - left_out.mean()) ** 2).sum()))


def test_auc_by_hand_with_a_tie() -> None:
    # Positives 0.9, 0.5; negatives 0.5, 0.1: pairs 1, 1, ½, 1 of 4.
    assert metrics.auc(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0])) == pytest.approx(3.5 / 4)


def test_auc_of_one_class_is_unknown() -> None:
    assert math.isnan(metrics.auc(np.array([0.1, 0.2]), np.array([1, 1])))


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=2, max_size=60))
def test_auc_and_log_loss_agree_with_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([score / 10 for score, _ in pairs])
    labels = np.array([int(label) for _, label in pairs])
    assert metrics.log_loss(scores, labels) == pytest.approx(reference_log_loss(labels, scores, labels=[0, 1]))
    if 0 < labels.sum() < len(labels):
        assert metrics.auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_calibration_error_weighs_the_gap_of_each_bin() -> None:
    # Two bins of two: predicted 0.1 observed 0.5 (gap 0.4), predicted 0.8 observed 1.0 (gap 0.2): mean 0.3.
    curve = metrics.calibration(np.array([0.1, 0.1, 0.8, 0.8]), np.array([0, 1, 1, 1]), bins=2)
    assert curve.ece == pytest.approx(0.3)
    assert curve.count.tolist() == [2, 2]
