from pathlib import Path

import numpy as np

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
