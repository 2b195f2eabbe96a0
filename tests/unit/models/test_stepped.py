"""Isotonic steps behind a ranker: the same order, other probabilities, and the same ones in NumPy and in a graph."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from bentos.recommender.rankers.logistic import open_logistic
from bentos.recommender.rankers.steps import MOST_KNOTS, Steps
from contracts.errors import ArtifactError
from tests.unit.leakage.leaky_rows import SCHEMA, honest_rows
from training.models.fitted import Fitted, of_logistic
from training.models.logistic import fit_logistic
from training.models.stepped import parity, sigmoid, stepped

STEPS = Steps(np.array([-4, -1, -0.999, 2]), np.array([-5, -3, 0, 0.5]), tail=2.0)
ROWS = honest_rows(users=20, seed=3)


def test_it_is_straight_lines_between_the_knots_and_goes_on_beyond_them() -> None:
    asked = np.array([-6, -4, -2.5, -1, -0.999, 0.5005, 2, 3], np.float32)
    assert STEPS(asked) == pytest.approx([-9, -5, -4, -3, 0, 0.25, 0.5, 2.5], abs=1e-5)
    inside = np.linspace(-4, 2, 999, dtype=np.float32)
    assert STEPS(inside) == pytest.approx(np.interp(inside, STEPS.x, STEPS.y), abs=1e-3)
    assert np.isnan(STEPS(np.array([np.nan], np.float32))).all()
    one = Steps(np.array([1.0]), np.array([3.0]), tail=0.5)
    assert one(np.array([-1, 1, 5], np.float32)).tolist() == [2, 3, 5]


@pytest.mark.parametrize("seed", range(3))
def test_it_never_falls_not_by_rounding_either(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = (np.cumsum(random.exponential(size=32) ** 4 / 50 + 1e-4) - 9 for _ in range(2))
    steps = Steps(x, y, tail=0.7)
    near = np.concatenate([steps.x + np.float32(by) for by in (-1e-6, 0, 1e-6)] + [random.uniform(-20, 60, 20_000)])
    assert (np.diff(steps(np.sort(near.astype(np.float32)))) >= 0).all()
    assert parity(steps) < 1e-6


@pytest.mark.parametrize(
    ("x", "y", "tail"),
    [
        ([], [], 1),
        ([1, 2], [1], 1),
        ([1, 1], [1, 2], 1),
        ([2, 1], [1, 2], 1),
        ([1, 2], [2, 2], 1),
        ([1, 2], [1, np.nan], 1),
        ([1, 2], [1, 2], 0),
        (range(MOST_KNOTS + 1), range(MOST_KNOTS + 1), 1),
    ],
)
def test_what_does_not_rise_is_no_steps(x: list[float], y: list[float], tail: float) -> None:
    with pytest.raises(ValueError, match="knots"):
        Steps(np.array(x, np.float32), np.array(y, np.float32), tail)


@pytest.fixture(scope="module")
def linear() -> Fitted:
    return of_logistic(fit_logistic(SCHEMA, honest_rows(), ROWS, seed=0), SCHEMA)


def test_a_ranker_on_steps_is_written_as_it_scores_and_says_so(linear: Fitted, tmp_path: Path) -> None:
    steps = Steps(np.array([-5, -3, -2]), np.array([-4, -3.5, 1]), tail=1.0)
    one = stepped(linear, steps)
    written = one.write(tmp_path, ROWS.rows)
    assert written.params == {"format": "numpy", "calibration": "isotonic"}
    assert written.difference < 1e-5
    served = open_logistic(tmp_path / "linear.npz", ROWS.rows.shape[1]).score(ROWS.rows)
    assert served == pytest.approx(sigmoid(steps(linear.logits(ROWS.rows))), abs=1e-5)
    assert np.abs(served - linear.predict(ROWS.rows)).max() > 0.05
    order = np.argsort(linear.logits(ROWS.rows), kind="stable")
    assert (np.diff(one.predict(ROWS.rows)[order]) >= 0).all()


def test_a_file_of_steps_that_do_not_rise_is_refused(linear: Fitted, tmp_path: Path) -> None:
    stepped(linear, STEPS).write(tmp_path, ROWS.rows)
    with np.load(tmp_path / "linear.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "linear.npz", **{**arrays, "steps_y": -arrays["steps_y"]})
    with pytest.raises(ArtifactError, match="do not rise"):
        open_logistic(tmp_path / "linear.npz", ROWS.rows.shape[1])


def test_nodes_that_say_something_else_are_not_written(
    linear: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        def __init__(self, *given: object, **told: object) -> None: ...

        def run(self, names: object, given: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
            return [STEPS(given["log_odds"]), sigmoid(STEPS(given["log_odds"])) + np.float32(1e-3)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Other)
    with pytest.raises(ArtifactError, match=r"isotonic steps: a score differs by 0\.001"):
        stepped(linear, STEPS).write(tmp_path, ROWS.rows)
