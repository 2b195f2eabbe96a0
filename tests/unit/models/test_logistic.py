from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contracts.framing import Costs
from features.ranking import row_schema
from training.evaluation import metrics
from training.models.dcn_v2 import RankingRows
from training.models.logistic import fit_logistic

SCHEMA = row_schema()


def world(users: int, seed: int) -> RankingRows:
    random = np.random.default_rng(seed)
    values = random.normal(size=(users * 30, len(SCHEMA.columns))).astype(np.float32)
    chance = 1 / (1 + np.exp(3 - 2 * values[:, 4]))
    labels = (random.random(len(values)) < chance).astype(np.int8)
    return RankingRows(values, labels, np.arange(0, users * 30 + 1, 30))


def two_kinds(users: int, seed: int) -> tuple[RankingRows, NDArray[np.float32]]:
    """Rows whose wishes are clicks (column 4) or purchases (column 5), and what they are worth: 1 and 10."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(users * 30, len(SCHEMA.columns))).astype(np.float32)
    click, purchase = (random.random(len(values)) < 1 / (1 + np.exp(3 - 2 * values[:, at])) for at in (4, 5))
    rows = RankingRows(values, (click | purchase).astype(np.int8), np.arange(0, users * 30 + 1, 30))
    return rows, np.where(purchase, 10, 1).astype(np.float32)


def test_it_finds_the_column_that_matters_and_is_calibrated() -> None:
    model = fit_logistic(SCHEMA, world(100, 0), world(30, 1), seed=0)
    fresh = world(60, 2)
    probabilities = model.predict(fresh.rows)
    assert metrics.auc(probabilities, fresh.labels) > 0.8
    assert metrics.calibration(probabilities, fresh.labels).ece < 0.04
    assert int(np.abs(model.weights).argmax()) == 4


def test_categorical_columns_have_no_weight() -> None:
    model = fit_logistic(SCHEMA, world(20, 0), world(10, 1), seed=0)
    for at, column in enumerate(SCHEMA.columns):
        if column.kind == "categorical":
            assert model.weights[at] == 0


def test_the_file_holds_the_four_arrays_that_serving_reads(tmp_path: Path) -> None:
    model = fit_logistic(SCHEMA, world(20, 0), world(10, 1), seed=0)
    model.save(tmp_path / "logistic.npz")
    with np.load(tmp_path / "logistic.npz") as arrays:
        assert sorted(arrays) == ["bias", "mean", "scale", "weights"]
        rows = world(1, 3).rows
        logits = ((rows - arrays["mean"]) / arrays["scale"]) @ arrays["weights"] + arrays["bias"]
    assert np.allclose(1 / (1 + np.exp(-logits)), model.predict(rows), atol=1e-6)


def test_labels_of_one_class_give_the_base_rate() -> None:
    rows = RankingRows(np.zeros((4, len(SCHEMA.columns)), np.float32), np.zeros(4, np.int8), np.array([0, 4]))
    model = fit_logistic(SCHEMA, rows, rows, seed=0)
    assert (model.predict(rows.rows) < 0.5).all()


def test_rows_lean_to_the_wishes_that_are_worth_more() -> None:
    """Clicks follow column 4, purchases column 5: what a purchase is worth decides how the two weigh."""
    rows, worth = two_kinds(60, 0)
    plain = fit_logistic(SCHEMA, rows, rows, seed=0)
    valued = fit_logistic(SCHEMA, replace(rows, gains=worth), rows, seed=0)
    assert valued.weights[5] / valued.weights[4] > 1.3 * plain.weights[5] / plain.weights[4]


def test_costs_of_errors_move_the_fit_and_leave_probabilities_calibrated() -> None:
    rows = world(100, 0)
    costly = fit_logistic(SCHEMA, rows, world(30, 1), seed=0, costs=Costs(false_negative=20))
    plain = fit_logistic(SCHEMA, rows, world(30, 1), seed=0, costs=Costs())
    assert not np.allclose(costly.weights, plain.weights, rtol=1e-3)
    fresh = world(60, 2)
    assert metrics.calibration(costly.predict(fresh.rows), fresh.labels).ece < 0.04
