"""Ranking bundles that hold something else than the reference world's DCN-V2."""

from pathlib import Path

import numpy as np
import onnx

from bentos.recommender.rankers.lightgbm_text import Tree
from features.ranking import row_schema
from registry.artifacts import FAST_RANKER, open_bundle, seal
from training.models.trees import Trees, trees_graph


def resealed(folder: Path, **params: object) -> None:
    """The ranking bundle again, whose manifest says something else of it."""
    manifest = open_bundle(folder, "ranking").manifest
    kept = {name: getattr(manifest, name) for name in manifest.__struct_fields__ if name not in ("files", "params")}
    seal(folder, **kept, params=params)


def trees_in_its_place(folder: Path) -> None:
    """One tree of two leaves, by the retrieval score."""
    for file in ("dcn.onnx", FAST_RANKER):
        (folder / file).unlink()
    columns = row_schema().names
    at, left, right = np.array([columns.index("retrieval")]), np.array([-1]), np.array([-2])
    tree = Tree(at, np.array([0.5]), left, right, np.array([-2.0, -1.0]))
    onnx.save(trees_graph(Trees((tree,), np.ones(len(columns), bool))), str(folder / "trees.onnx"))
    resealed(folder, ranker="trees", format="onnx")
