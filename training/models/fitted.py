"""The fitted rankers behind one interface, from simple to complex, and which of them serves.

Chosen by NDCG@10 within the candidates of users at the newest moments before the cut, by rankers that learned at the
moments before those, never on the test window: the simplest whose figure is within `TOLERANCE` of the best. Users held
out at the same moments choose whoever knows its items by name (docs/adr/0035). R rows, F columns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.rankers.logistic import open_logistic
from contracts.serving import Ranker
from features.ranking import RowSchema
from training.evaluation.metrics import Estimate
from training.models.dcn_fast import write_fast
from training.models.dcn_v2 import DcnV2, RankingRows, export_dcn, predict, user_ndcg, weights_of
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
    """logits, predict: rows float32 [R, F] → float32 [R], calibrated log odds and probability. reads: bool [F].

    write: (folder, rows to check on and calibrate with) → the files of the ranking bundle.
    """

    name: Ranker
    logits: Score
    predict: Score
    reads: NDArray[np.bool_]
    write: Callable[[Path, Rows], Written]


@dataclass(frozen=True, slots=True)
class Pick:
    """ndcg: NDCG@10 by ranker; NaN where nobody has a positive candidate. behind: what each lacks of the best, paired
    over the users; empty where there was nothing to choose."""

    name: Ranker
    why: str
    ndcg: Mapping[Ranker, float]
    behind: Mapping[Ranker, Estimate] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        """For MLflow: finite numbers only."""
        found = {f"choice_ndcg@10_{name}": value for name, value in self.ndcg.items()}
        for name, lacks in self.behind.items():
            found |= {f"choice_behind_{name}": lacks.value, f"choice_behind_{name}_se": lacks.se}
        return {name: value for name, value in found.items() if np.isfinite(value)}


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
    def logits(rows: Rows) -> NDArray[np.float32]:
        slope, offset = model.calibration.tolist()
        return np.asarray(slope * predict(model, rows, raw=True) + offset, np.float32)

    def write(folder: Path, rows: Rows) -> Written:
        difference = export_dcn(model, folder / "dcn.onnx")
        fast = write_fast(folder, weights_of(model), rows)
        return Written({"format": "onnx", **({} if fast is None else {"fast": fast.params})}, difference)

    reads = np.array([*(model.scale > 0).tolist(), *model.tells_apart])
    return Fitted("dcn", logits, partial(predict, model), reads, write)


def pick(fitted: Sequence[Fitted], judged: Sequence[RankingRows], whose: str) -> Pick:
    """fitted: from simple to complex. judged: rows of one or several moments, whose users count alike. whose: which
    users they are, in words."""
    own = {one.name: np.concatenate([user_ndcg(one.logits(part.rows), part) for part in judged]) for one in fitted}
    ndcg = {name: float(values.mean()) if len(values) else float("nan") for name, values in own.items()}
    users = f"{len(own[fitted[0].name]):,} users with a wish among their candidates"
    said = f"NDCG@10 of {users}, {whose}: " + ", ".join(f"{name} {value:.4f}" for name, value in ndcg.items())
    if len(fitted) == 1:
        return Pick(fitted[0].name, said, ndcg)
    top = max((name for name in ndcg if np.isfinite(ndcg[name])), key=lambda name: ndcg[name], default=None)
    if top is None or not ndcg[top] > 0:
        return Pick(fitted[0].name, "the simplest, as no user tells them apart", ndcg)
    behind = {name: Estimate.of(own[top] - values) for name, values in own.items()}
    chosen = next(one.name for one in fitted if ndcg[one.name] >= (1 - TOLERANCE) * ndcg[top])
    why = f"the simplest within {TOLERANCE:.0%} of the best"
    if chosen != top:
        why += f", {top} (paired {behind[chosen].value:.4f} ± {behind[chosen].se:.4f} behind it)"
    return Pick(chosen, f"{why}; {said}", ndcg, behind)
