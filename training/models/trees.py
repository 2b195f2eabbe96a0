"""Gradient-boosted trees over ranking rows, calibrated: LightGBM (Ke et al., NeurIPS 2017), and its ONNX graph.

The trees read the dense columns without the clock's, as the network does where it saw a few moments only. Names of
items (category, creator) and users (country, device) are left out: docs/adr/0035. R rows, F columns, L leaves.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import lightgbm
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bentos.recommender.onnx_session import open_session
from bentos.recommender.rankers.lightgbm_text import Tree, read_trees, write_trees
from contracts.errors import ArtifactError
from contracts.framing import Costs
from features.ranking import RowSchema
from training.export import MAX_ONNX_DIFFERENCE
from training.models.dcn_v2 import RankingRows, platt, standardise
from training.progress import Progress, silent

IR, OPSET, ML_OPSET = 9, 18, 3
CHECKED_ROWS = 512
NOTHING = 1.0000002e-35  # LightGBM keeps no value nearer to zero (kZeroThreshold)


@dataclass(frozen=True, slots=True)
class TreesConfig:
    """max_rows: users are drawn so that about so many rows are learned from."""

    rounds: int = 300
    leaves: int = 31
    learning_rate: float = 0.05
    min_rows_in_leaf: int = 200
    column_share: float = 0.5
    row_share: float = 0.7
    l2: float = 5.0
    bins: int = 127
    patience: int = 30  # rounds without a better log loss on the held-out users
    max_rows: int = 3_000_000


@dataclass(frozen=True)
class Trees:
    """rows float32 [R, F] → calibrated probability: sigmoid of the sum of one leaf of each tree.

    reads: bool [F], columns that the trees were given.
    """

    trees: tuple[Tree, ...]
    reads: NDArray[np.bool_]

    @cached_property
    def booster(self) -> lightgbm.Booster:
        return lightgbm.Booster(model_str=write_trees(self.trees, len(self.reads)))

    def logits(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [R]."""
        if not len(rows):
            return np.empty(0, np.float32)
        return np.asarray(self.booster.predict(rows, raw_score=True, num_threads=threads()), np.float32)

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [R]."""
        return np.asarray(1 / (1 + np.exp(-self.logits(rows))), np.float32)


def fit_trees(
    schema: RowSchema,
    train: RankingRows,
    held_out: RankingRows,
    *,
    seed: int,
    config: TreesConfig | None = None,
    costs: Costs | None = None,
    unwanted: Event | None = None,
    progress: Progress = silent,
) -> Trees:
    """Learn on `train`; stop and calibrate (Platt) on `held_out`, the rows of other users.

    costs: of errors, which with the gains of the rows weigh the loss; stopping and calibration are by labels alone.
    unwanted: once set, no further round is begun, and what comes back is of no use.

    Stopped by log loss: NDCG@10 of some hundred users jumps about from round to round, and its best is often luck.
    Without held-out positives all rounds stand, and the calibration matches the base rate of `train`.
    """
    config = config or TreesConfig()
    reads = columns_read(schema, train.rows)
    trees = _boosted(
        reads,
        _some(train, config.max_rows, reads, seed),
        _some(held_out, config.max_rows // 4, reads, seed),
        costs or Costs(),
        seed,
        config,
        unwanted or Event(),
    )
    progress("boosted trees", 1, 1)
    source = held_out if held_out.labels.any() else train
    raw = Trees(trees, reads)
    return Trees(calibrated(trees, *platt(raw.logits(source.rows), source.labels)), reads)


def columns_read(schema: RowSchema, rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool [F]: dense columns that are neither constant nor a clock's that was seen at a few moments only."""
    reads = np.zeros(len(schema.columns), bool)
    dense = [at for at, column in enumerate(schema.columns) if column.kind == "dense"]
    reads[dense] = standardise(rows, schema)[1] > 0
    return reads


def calibrated(trees: Sequence[Tree], slope: float, offset: float) -> tuple[Tree, ...]:
    """Trees whose sum is slope × that of `trees` + offset."""
    scaled = [replace(tree, leaf=tree.leaf * slope) for tree in trees]
    return (replace(scaled[0], leaf=scaled[0].leaf + offset), *scaled[1:])


def _some(data: RankingRows, at_most: int, reads: NDArray[np.bool_], seed: int) -> RankingRows:
    """A copy, of as many users as give about so many rows, that knows nothing of what is not read: a constant column is
    never split on, and the places of the others stay those of a row."""
    if len(data.labels) <= at_most:
        return replace(data, rows=np.where(reads, data.rows, np.float32(0)))
    order = np.random.default_rng(seed).permutation(data.n_users)
    room = np.searchsorted(np.cumsum(np.diff(data.indptr)[order]), at_most, side="right")
    some = data.take(np.sort(order[: max(int(room), 1)]))
    some.rows[:, ~reads] = 0
    return some


def _boosted(
    reads: NDArray[np.bool_],
    train: RankingRows,
    held_out: RankingRows,
    costs: Costs,
    seed: int,
    config: TreesConfig,
    unwanted: Event,
) -> tuple[Tree, ...]:
    if not 0 < train.labels.sum() < len(train.labels):
        none = np.empty(0, np.int64)
        return (Tree(none, np.empty(0), none, none, np.zeros(1)),)  # the calibration makes the base rate of it
    parameters = {
        "objective": "binary",
        "metric": "binary_logloss",
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": min(config.min_rows_in_leaf, max(len(train.labels) // 50, 1)),
        "feature_fraction": config.column_share,
        "bagging_fraction": config.row_share,
        "bagging_freq": 1,
        "lambda_l2": config.l2,
        "max_bin": config.bins,
        "use_missing": False,  # rows have no unknowns, and an export without them is a simpler one
        "verbosity": -1,
        "deterministic": True,
        "force_col_wise": True,
        "seed": seed,
        "num_threads": threads(),
    }
    learn = lightgbm.Dataset(train.rows, train.labels, weight=train.weights(costs), params=parameters).construct()

    def give_up(env: lightgbm.callback.CallbackEnv) -> None:
        if unwanted.is_set():
            raise lightgbm.callback.EarlyStopException(env.iteration, [])

    stop: list[Callable[..., Any]] = []
    check = []
    if 0 < held_out.labels.sum() < len(held_out.labels):
        check = [learn.create_valid(held_out.rows, held_out.labels, params=parameters).construct()]
        stop = [lightgbm.early_stopping(config.patience, verbose=False)]
    del train, held_out  # they are binned: nobody else holds these copies, a gigabyte at 3 million rows
    booster = lightgbm.train(parameters, learn, config.rounds, valid_sets=check, callbacks=[give_up, *stop])
    best = booster.best_iteration if stop else None
    return tuple(read_trees(booster.model_to_string(num_iteration=best), len(reads)))


def threads() -> int:
    """The trees and their scores are the same for any number of them."""
    return min(2, os.cpu_count() or 1)


def export_trees(model: Trees, path: Path, rows: NDArray[np.float32]) -> float:
    """Write trees.onnx (`rows` float32 [R, F] → `score` float32 [R]) by rename; the largest difference from LightGBM.

    rows: float32 [R, F] to compare on, beside rows on and beside the trees' own thresholds and far outside of them.

    Raises:
        ArtifactError: they differ by more than 1e-4.
    """
    part = path.with_name(path.name + ".part")
    onnx.save(trees_graph(model), str(part))
    session = open_session(part)
    tried = np.concatenate([rows[:: max(len(rows) // CHECKED_ROWS, 1)], hard_rows(model)])
    wanted = model.booster.predict(tried, num_threads=1)
    (scores,) = session.run(None, {"rows": tried})
    worst = float(np.abs(scores - wanted).max())
    if not worst <= MAX_ONNX_DIFFERENCE:
        raise ArtifactError(f"{path.name} differs from LightGBM by {worst:.2g}, more than {MAX_ONNX_DIFFERENCE:g}")
    part.rename(path)
    return worst


def trees_graph(model: Trees) -> onnx.ModelProto:
    """One operator over all trees. A row with a NaN gets NaN: the operator alone would send it right at every split."""
    attributes: dict[str, Any] = {
        name: []
        for name in (
            "nodes_treeids",
            "nodes_nodeids",
            "nodes_featureids",
            "nodes_values",
            "nodes_modes",
            "nodes_truenodeids",
            "nodes_falsenodeids",
            "target_treeids",
            "target_nodeids",
            "target_ids",
            "target_weights",
        )
    }

    def add(**values: object) -> None:
        for name, value in values.items():
            attributes[name].extend(np.asarray(value).tolist())

    for number, tree in enumerate(model.trees):
        splits, leaves = len(tree.column), len(tree.leaf)
        nodes = splits + leaves

        def node(child: NDArray[np.int64], splits: int = splits) -> NDArray[np.int64]:
            return np.where(child < 0, splits + ~child, child)

        none = np.zeros(leaves, np.int64)
        add(
            nodes_treeids=np.full(nodes, number),
            nodes_nodeids=np.arange(nodes),
            nodes_featureids=np.concatenate([tree.column, none]),
            nodes_values=np.concatenate([at_most(tree.threshold), none.astype(np.float32)]),
            nodes_modes=["BRANCH_LEQ"] * splits + ["LEAF"] * leaves,
            nodes_truenodeids=np.concatenate([node(tree.left), none]),
            nodes_falsenodeids=np.concatenate([node(tree.right), none]),
            target_treeids=np.full(leaves, number),
            target_nodeids=splits + np.arange(leaves),
            target_ids=none,
            target_weights=tree.leaf.astype(np.float32),
        )
    known = [
        helper.make_node("Mul", ["rows", "zero"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing", "columns"], ["unknown"], keepdims=0),
    ]
    ensemble = helper.make_node(
        "TreeEnsembleRegressor",
        ["rows"],
        ["sum"],
        domain="ai.onnx.ml",
        n_targets=1,
        **attributes,
    )
    score = [
        helper.make_node("Squeeze", ["sum", "columns"], ["flat"]),
        helper.make_node("Add", ["flat", "unknown"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    graph = helper.make_graph(
        [*known, ensemble, *score],
        "trees",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", len(model.reads)])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])],
        [
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(np.array([1]), "columns"),
        ],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR)


def at_most(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """The greatest float32 that is not above: a float32 value is at most one exactly if it is at most the other."""
    with np.errstate(over="ignore"):
        near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)


def hard_rows(model: Trees) -> NDArray[np.float32]:
    """float32 [R, F]: each column on, just below and just above thresholds of its own, or very large and small."""
    random = np.random.default_rng(0)
    rows = np.zeros((CHECKED_ROWS, len(model.reads)), np.float32)
    column = np.concatenate([tree.column for tree in model.trees])
    edge = at_most(np.concatenate([tree.threshold for tree in model.trees]))
    for at in np.unique(column):
        own = random.choice(edge[column == at], CHECKED_ROWS)
        step = random.integers(-1, 2, CHECKED_ROWS)
        rows[:, at] = np.where(step == 0, own, np.nextafter(own, np.float32(np.inf) * np.where(step, step, 1)))
    rows[np.abs(rows) < NOTHING] = 0  # LightGBM reads such a value as zero, so that no row may say more
    rows[::8] = random.choice(np.array([-3e38, -1e30, 0, 1e30, 3e38], np.float32), rows[::8].shape)
    return rows
