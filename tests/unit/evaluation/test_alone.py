import numpy as np
import pytest

from training.evaluation.alone import each_alone
from training.evaluation.metrics import Targets, pad
from training.evaluation.protocol import Lists, TestSet
from training.evaluation.report import score

# Two users; targets {0, 1}, {2}.
TEST = TestSet(np.array([4, 7]), Targets.of(np.array([0, 0, 1]), np.array([0, 1, 2]), 2), 10)
SOURCES = {"graph": pad([np.array([5, 1]), np.array([2])], 500)}


def test_a_source_has_its_own_figures_and_its_difference_to_the_linear_baseline_over_the_same_users() -> None:
    lists = pad([np.array([0, 1]), np.array([6])], 500)
    (one,) = each_alone(SOURCES, TEST, [score("ease", Lists(lists, lists), TEST)])
    second = (1 / np.log2(3)) / (1 + 1 / np.log2(3))
    assert one.scores.value("ndcg@10") == pytest.approx((second + 1) / 2)
    assert one.scores.value("recall@500") == pytest.approx(0.75)
    assert one.gain["ndcg@10"].value == pytest.approx(((second - 1) + (1 - 0)) / 2)
    assert one.gain["recall@500"].value == pytest.approx((-0.5 + 1) / 2)
    assert one.plain()["recall@500_over_ease"] == pytest.approx(0.25)
    assert one.plain()["recall@500_over_ease_se"] == pytest.approx(0.75)


def test_without_that_baseline_a_source_has_no_difference() -> None:
    (one,) = each_alone(SOURCES, TEST, [score("popularity", Lists(SOURCES["graph"], SOURCES["graph"]), TEST)])
    assert not one.gain
    assert "ndcg@10_over_ease" not in one.plain()
