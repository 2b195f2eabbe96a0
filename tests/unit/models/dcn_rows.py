"""Drawn rows of several users, and DCN-V2s with drawn weights over them."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.reference_ranker import RankerShape, reference_dcn
from bentos.recommender.onnx_session import open_session
from bentos.recommender.rankers.dcn import FoldedRanker
from bentos.recommender.rankers.onnx_graph import OnnxRanker
from features.ranking import FIRST_CATEGORY, FIRST_USER, row_schema
from training.models.dcn_weights import DcnWeights

SCHEMA = row_schema()
EMBEDDINGS = {"category": 9, "creator": 6, "country": 3, "device": 2}


def drawn_rows(users: int, each: int, seed: int) -> NDArray[np.float32]:
    """float32 [users × each, F]: the user's columns are the same in all of a user's rows."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((users * each, len(SCHEMA.columns))).astype(np.float32)
    for at, column in enumerate(SCHEMA.columns):
        if column.kind == "categorical":
            rows[:, at] = rng.integers(0, column.size, len(rows))
    for columns in (slice(FIRST_USER, FIRST_CATEGORY), slice(FIRST_CATEGORY + 2, None)):
        rows[:, columns] = np.repeat(rows[::each, columns], each, axis=0)
    return rows


def drawn_dcn(cross_layers: int, hidden: tuple[int, ...], seed: int = 7) -> DcnWeights:
    return reference_dcn(RankerShape(cross_layers, hidden, EMBEDDINGS), SCHEMA, drawn_rows(20, 50, 0), seed)


def opened(model: onnx.ModelProto, folder: Path) -> FoldedRanker:
    onnx.save(model, str(folder / "fast.onnx"))
    return FoldedRanker(open_session(folder / "fast.onnx"))


def opened_plain(model: onnx.ModelProto, folder: Path) -> OnnxRanker:
    onnx.save(model, str(folder / "plain.onnx"))
    return OnnxRanker(open_session(folder / "plain.onnx"))
