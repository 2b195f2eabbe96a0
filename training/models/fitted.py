"""The fitted rankers behind one interface, from simple to complex, and which of them serves.

Chosen by NDCG@10 within the candidates of users at the last moment before the cut, by rankers that learned at the
moments before it, never on the test window: the simplest whose figure is within `TOLERANCE` of the best. Users held out
at the same moments choose whoever knows its items by name (docs/adr/0035). R rows, F columns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.rankers.logistic import open_logistic
from contracts.serving import Ranker
from features.ranking import RowSchema
from training.models.dcn_fast import write_fast
from training.models.dcn_v2 import DcnV2, RankingRows, export_dcn, held_out_ndcg, predict, weights_of
from training.models.logistic import Logistic
from training.models.trees import Trees, export_trees

TOLERANCE = 0.01  # of the best figure: what complexity must bring at least

Rows = NDArray[np.float32]
Score = Callable[[Rows], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Written:
    """params: for the manifest. difference: the largest one of a score between the file and the model."""

    params: Mapping[str, Any]
    difference: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """logits, predict: rows float32 [R, F] → float32 [R], before and after calibration. reads: bool [F].

    write: (folder, rows to check on and calibrate with) → the files of the ranking bundle.
    """

    name: Ranker
    logits: Score
    predict: Score
    reads: NDArray[np.bool_]
    write: Callable[[Path, Rows], Written]


@dataclass(frozen=True, slots=True)
class Pick:
    """ndcg: NDCG@10 by ranker; NaN where nobody has a positive candidate."""

    name: Ranker
    why: str
    ndcg: Mapping[Ranker, float]

    @property
    def figures(self) -> dict[str, float]:
        """For MLflow: finite numbers only."""
        return {f"choice_ndcg@10_{name}": value for name, value in self.ndcg.items() if np.isfinite(value)}


def of_logistic(model: Logistic, schema: RowSchema) -> Fitted:
    def logits(rows: Rows) -> NDArray[np.float32]:
        p = np.clip(model.predict(rows).astype(np.float64), 1e-12, 1 - 1e-12)
        return np.log(p / (1 - p)).astype(np.float32)

    def write(folder: Path, rows: Rows) -> Written:
        model.save(folder / "linear.npz")
        served = open_logistic(folder / "linear.npz", len(schema.columns)).score(rows)
        return Written({"format": "numpy"}, float(np.abs(served - model.predict(rows)).max(initial=0)))

    return Fitted("linear", logits, model.predict, model.weights != 0, write)


def of_trees(model: Trees) -> Fitted:
    def write(folder: Path, rows: Rows) -> Written:
        return Written({"format": "onnx"}, export_trees(model, folder / "trees.onnx", rows))

    return Fitted("trees", model.logits, model.predict, model.reads, write)


def of_dcn(model: DcnV2) -> Fitted:
    def write(folder: Path, rows: Rows) -> Written:
        difference = export_dcn(model, folder / "dcn.onnx")
        fast = write_fast(folder, weights_of(model), rows)
        return Written({"format": "onnx", **({} if fast is None else {"fast": fast.params})}, difference)

    reads = np.array([*(model.scale > 0).tolist(), *model.tells_apart])
    return Fitted("dcn", partial(predict, model, raw=True), partial(predict, model), reads, write)


def pick(fitted: Sequence[Fitted], judged: RankingRows, whose: str) -> Pick:
    """fitted: from simple to complex. whose: which users' rows `judged` are, in words."""
    ndcg = {one.name: held_out_ndcg(one.logits(judged.rows), judged) for one in fitted}
    said = f"NDCG@10 of {judged.n_users} users {whose}: " + ", ".join(f"{name} {v:.4f}" for name, v in ndcg.items())
    if len(fitted) == 1:
        return Pick(fitted[0].name, said, ndcg)
    top = max((value for value in ndcg.values() if np.isfinite(value)), default=float("nan"))
    if not top > 0:
        return Pick(fitted[0].name, "the simplest, as no user tells them apart", ndcg)
    chosen = next(one.name for one in fitted if ndcg[one.name] >= (1 - TOLERANCE) * top)
    return Pick(chosen, f"the simplest within {TOLERANCE:.0%} of the best; {said}", ndcg)
