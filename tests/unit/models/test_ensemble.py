"""Trees and the network together: one graph that says what both say."""

from pathlib import Path

import numpy as np
import pytest

from contracts.errors import ArtifactError
from tests.unit.leakage.leaky_rows import SCHEMA, honest_rows
from training.models import ensemble
from training.models.dcn_v2 import DcnConfig, fit_dcn, predict
from training.models.ensemble import Ensemble, export_ensemble, of_both
from training.models.fitted import pick
from training.models.trees import TreesConfig, fit_trees

HELD_OUT = honest_rows(users=40, seed=1)


@pytest.fixture(scope="module")
def model() -> Ensemble:
    learn = honest_rows()
    trees = fit_trees(SCHEMA, learn, HELD_OUT, seed=0, config=TreesConfig(rounds=20, leaves=8, min_rows_in_leaf=20))
    dcn = fit_dcn(SCHEMA, learn, HELD_OUT, seed=0, config=DcnConfig(epochs=1, min_steps=30, hidden=(8,)))
    return Ensemble(trees, dcn, HELD_OUT)


def test_its_log_odds_are_a_line_over_the_mean_of_both(model: Ensemble) -> None:
    rows = HELD_OUT.rows[:50]
    p, q = model.trees.predict(rows).astype(np.float64), predict(model.dcn, rows).astype(np.float64)
    mean = (np.log(p / (1 - p)) + np.log(q / (1 - q))) / 2
    np.testing.assert_allclose(model.logits(rows), model.slope * mean + model.offset, atol=1e-4)
    probability = model.predict(HELD_OUT.rows)
    assert abs(probability.mean() / HELD_OUT.labels.mean() - 1) < 0.1


def test_a_graph_that_says_something_else_is_not_written(
    model: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ensemble, "MAX_ONNX_DIFFERENCE", -1.0)
    with pytest.raises(ArtifactError, match="differs from its models"):
        export_ensemble(model, tmp_path / "ensemble.onnx", HELD_OUT.rows)
    assert not (tmp_path / "ensemble.onnx").exists()


def test_it_can_be_asked_for_by_name_and_reads_what_either_reads(model: Ensemble) -> None:
    one = of_both(model.trees, model.dcn, HELD_OUT)
    assert pick([one], [HELD_OUT], "ensemble").name == one.name == "ensemble"
    assert (one.reads >= model.trees.reads).all()
