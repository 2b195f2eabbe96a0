"""Boosted trees over ranking rows: what they read, that they repeat, and that the ONNX graph is the same model."""

from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from bentos.recommender.rankers.lightgbm_text import Tree, read_trees, write_trees
from bentos.recommender.rankers.onnx_graph import open_graph
from contracts.errors import ArtifactError
from features.ranking import CLOCK_COLUMNS
from tests.unit.leakage.leaky_rows import HONEST, SCHEMA, honest_rows
from training.evaluation.metrics import auc
from training.models.dcn_v2 import RankingRows
from training.models.trees import Trees, TreesConfig, at_most, export_trees, fit_trees, hard_rows, trees_graph

WIDTH = len(SCHEMA.columns)
QUICK = TreesConfig(rounds=30, leaves=8, learning_rate=0.2, min_rows_in_leaf=20)
HELD_OUT = honest_rows(users=40, seed=1)


@pytest.fixture(scope="module")
def trees() -> Trees:
    return fit_trees(SCHEMA, honest_rows(), HELD_OUT, seed=0, config=QUICK)


def by_hand(trees: Trees, rows: np.ndarray) -> np.ndarray:
    """Down every tree, split by split, in float64."""
    found = []
    for row in rows.astype(np.float64):
        logit = 0.0
        for tree in trees.trees:
            at = 0 if len(tree.column) else -1
            while at >= 0:
                at = (tree.left if row[tree.column[at]] <= tree.threshold[at] else tree.right)[at]
            logit += tree.leaf[~at]
        found.append(1 / (1 + np.exp(-logit)))
    return np.array(found)


def test_they_learn_what_the_rows_know_and_their_probabilities_are_honest(trees: Trees) -> None:
    p = trees.predict(HELD_OUT.rows)
    assert auc(p, HELD_OUT.labels) > 0.7  # of the formula that drew the labels: 0.76
    assert abs(p.mean() / HELD_OUT.labels.mean() - 1) < 0.1
    used = np.unique(np.concatenate([tree.column for tree in trees.trees]))
    assert SCHEMA.at(HONEST) in used


def test_the_same_seed_and_rows_give_the_same_trees(trees: Trees) -> None:
    again = fit_trees(SCHEMA, honest_rows(), HELD_OUT, seed=0, config=QUICK)
    assert write_trees(again.trees, WIDTH) == write_trees(trees.trees, WIDTH)


def test_they_stop_where_the_held_out_users_get_no_better(trees: Trees) -> None:
    patient = fit_trees(SCHEMA, honest_rows(), HELD_OUT, seed=0, config=replace(QUICK, rounds=200, patience=5))
    assert len(patient.trees) < 60


def test_trees_that_nobody_wants_any_more_stop_at_the_next_round() -> None:
    unwanted = Event()
    unwanted.set()
    few = fit_trees(SCHEMA, honest_rows(), HELD_OUT, seed=0, config=replace(QUICK, rounds=500), unwanted=unwanted)
    assert len(few.trees) == 1


def test_names_clocks_and_constants_are_not_read() -> None:
    data = honest_rows()
    data.rows[:, SCHEMA.at("log_price")] = 3.0
    data.rows[:, SCHEMA.at(CLOCK_COLUMNS[0])] = np.sign(data.rows[:, SCHEMA.at(CLOCK_COLUMNS[0])])
    reads = dict(zip(SCHEMA.names, fit_trees(SCHEMA, data, HELD_OUT, seed=0, config=QUICK).reads, strict=True))
    assert not any(reads[name] for name in ("category", "creator", "country", "device", "log_price", CLOCK_COLUMNS[0]))
    assert reads[HONEST]


@pytest.mark.parametrize("positives", ["none", "all"])
def test_one_class_only_gives_the_base_rate(positives: str) -> None:
    data = honest_rows(users=5)
    labels = np.full_like(data.labels, positives == "all")
    one = RankingRows(data.rows, labels, data.indptr, data.user_ids)
    p = fit_trees(SCHEMA, one, one, seed=0, config=QUICK).predict(data.rows)
    assert np.allclose(p, p[0])
    assert p[0] > 0.99 if positives == "all" else p[0] < 0.01


def test_hardly_any_rows_are_enough_to_fit() -> None:
    data = honest_rows(users=2, each=10)
    data.labels[:] = np.arange(len(data.labels)) % 2
    assert np.isfinite(fit_trees(SCHEMA, data, data, seed=0, config=QUICK).predict(data.rows)).all()


def test_more_rows_than_allowed_are_those_of_whole_users() -> None:
    few = replace(QUICK, max_rows=400, rounds=5)
    assert len(fit_trees(SCHEMA, honest_rows(), HELD_OUT, seed=0, config=few).trees) <= 5


def test_the_text_is_the_same_model(trees: Trees) -> None:
    again = read_trees(write_trees(trees.trees, WIDTH), WIDTH)
    for ours, theirs in zip(trees.trees, again, strict=True):
        for name in ("column", "threshold", "left", "right", "leaf"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name))


def test_graph_and_library_and_a_walk_by_hand_agree_also_on_thresholds_and_far_outside(
    trees: Trees, tmp_path: Path
) -> None:
    rows = np.concatenate([HELD_OUT.rows[:50], hard_rows(trees)[:200]])
    assert export_trees(trees, tmp_path / "trees.onnx", rows) < 1e-6
    expected = by_hand(trees, rows)
    assert np.abs(open_graph(tmp_path / "trees.onnx", WIDTH, 1).score(rows) - expected).max() < 1e-6
    assert np.abs(trees.predict(rows) - expected).max() < 1e-6


def test_a_threshold_between_two_float32_is_rounded_down() -> None:
    """The library compares float64: 0.1 as float32 is above 0.1, and so goes right."""
    edges = np.array([0.1, 1.0, -0.1, 1e300, 1e-300, 0.0])
    below = at_most(edges)
    assert (below.astype(np.float64) <= edges).all()
    with np.errstate(over="ignore"):
        assert (np.nextafter(below, np.float32(np.inf)).astype(np.float64) > edges).all()
    one = Tree(np.array([0]), np.array([0.1]), np.array([-1]), np.array([-2]), np.array([-1.0, 1.0]))
    model = Trees((one,), np.ones(WIDTH, bool))
    rows = np.zeros((2, WIDTH), np.float32)
    rows[:, 0] = [np.nextafter(np.float32(0.1), np.float32(0)), np.float32(0.1)]
    assert (model.predict(rows) > 0.5).tolist() == [False, True]


def test_a_graph_that_differs_from_the_trees_is_not_written(
    trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Trees((replace(trees.trees[0], leaf=trees.trees[0].leaf + 1), *trees.trees[1:]), trees.reads)
    monkeypatch.setattr("training.models.trees.trees_graph", lambda model: trees_graph(wrong))
    with pytest.raises(ArtifactError, match="differs from LightGBM"):
        export_trees(trees, tmp_path / "trees.onnx", HELD_OUT.rows)
    assert not (tmp_path / "trees.onnx").exists()


@pytest.mark.parametrize("threshold", [-1.0000000180025095e-35, 1.0000000180025095e-35, 0.0])
def test_a_split_beside_zero_is_exported_as_lightgbm_reads_it(threshold: float, tmp_path: Path) -> None:
    both, leaf = np.array([-1]), np.array([-2.0, 2.0])
    tree = Tree(np.array([SCHEMA.at(HONEST)]), np.array([threshold]), both, both - 1, leaf)
    model = Trees((tree,), np.ones(WIDTH, bool))
    assert export_trees(model, tmp_path / "trees.onnx", HELD_OUT.rows) <= 1e-4
