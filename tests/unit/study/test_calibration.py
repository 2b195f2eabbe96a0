"""Platt or isotonic, by validation rows; neither may change an order."""

import numpy as np
import pytest
from numpy.typing import NDArray

from contracts.quality import CalibrationLimits
from training.calibration import KNOTS, Choice, choose, isotonic
from training.evaluation.report import score_ranker
from training.models.dcn_v2 import platt
from training.study.checks import calibrated


def drawn(truth: str, n: int = 40_000) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.int64]]:
    """Logits of 400 users, labels by a sigmoid of them or by a step that no sigmoid follows."""
    random = np.random.default_rng(0)
    logits = random.normal(-2, 1.5, n)
    chance = 1 / (1 + np.exp(-logits)) if truth == "sigmoid" else np.where(logits > -1, 0.3, 0.02)
    return logits, (random.random(n) < chance).astype(np.int8), np.repeat(np.arange(400), n // 400)


def test_where_the_truth_is_a_sigmoid_platt_stays() -> None:
    choice = choose(*drawn("sigmoid"), seed=0)
    assert choice.chosen == "platt"
    assert choice.platt is not None
    assert choice.isotonic is not None
    assert choice.platt.ece < 0.01
    assert choice.isotonic.ece < 0.01


def test_where_the_truth_has_a_step_isotonic_is_chosen() -> None:
    choice = choose(*drawn("step"), seed=0)
    assert choice.chosen == "isotonic"
    assert choice.gain > 0.01
    assert choice.isotonic is not None
    assert choice.platt is not None
    assert choice.isotonic.ece < choice.platt.ece / 2
    assert choice.steps is not None
    logits, labels, _ = drawn("step")
    served = 1 / (1 + np.exp(-choice.steps(logits.astype(np.float32))))
    assert served.mean() == pytest.approx(labels.mean(), rel=1e-3)
    for side in (logits > -1, logits <= -1):
        assert served[side].mean() == pytest.approx(labels[side].mean(), rel=0.05)
    assert len(choice.plain()["log_odds"]) == len(choice.plain()["become"]) > 1


@pytest.mark.parametrize("labels", ["none", "all"])
def test_steps_of_one_class_are_finite(labels: str) -> None:
    x = np.linspace(-3, 3, 100)
    steps = isotonic(x, np.full(100, labels == "all", np.int8))
    assert np.isfinite(steps(x.astype(np.float32))).all()


def test_neither_changes_the_order_of_any_row() -> None:
    logits, labels, _ = drawn("step", 4_000)
    table = isotonic(logits, labels)
    wide = np.sort(np.concatenate([logits, [-30.0, 30.0]]).astype(np.float32))
    assert (np.diff(table(wide)) >= 0).all()
    apart = np.arange(-30, 30, 1e-3, dtype=np.float32)  # nearer ones may be one float32
    assert (np.diff(table(apart)) > 0).all()
    assert len(table.x) <= KNOTS
    slope, _ = platt(logits, labels)
    assert slope > 0


def test_few_positives_leave_platt_and_say_why() -> None:
    choice = choose(np.zeros(100), np.zeros(100, np.int8), np.arange(100), seed=0)
    assert choice.chosen == "platt"
    assert "0 positive validation rows" in choice.why
    assert choice.figures == {"calibration_positives": 0.0}


def test_a_ranker_that_promises_too_much_fails_and_one_without_positives_is_open() -> None:
    logits, labels, users = drawn("sigmoid", 8_000)
    honest = 1 / (1 + np.exp(-logits))
    none = Choice("platt", "")
    assert calibrated(score_ranker(honest, labels, users), none, CalibrationLimits()).verdict == "pass"
    assert calibrated(score_ranker(honest**0.2, labels, users), none, CalibrationLimits()).verdict == "fail"
    empty = score_ranker(honest, np.zeros_like(labels), users)
    assert calibrated(empty, none, CalibrationLimits()).verdict == "inconclusive"
