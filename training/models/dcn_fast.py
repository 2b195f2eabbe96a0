"""Which graph of a DCN-V2 serves on a CPU: the folded one, in int8 where that is worth it and ranks the same.

What was chosen and how far it is from the plain graph is told in the manifest of the ranking bundle, `params["fast"]`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from bentos.recommender.models import RowScorer
from bentos.recommender.onnx_session import open_session
from bentos.recommender.rankers.dcn import FoldedRanker, user_starts
from bentos.recommender.rankers.onnx_graph import OnnxRanker
from contracts.errors import ArtifactError
from registry.artifacts import FAST_RANKER
from training.models.dcn_folded import fold, foldable, folded_graph
from training.models.dcn_int8 import int8_graph
from training.models.dcn_weights import DcnWeights

TOP = 50
FLOAT32_TOLERANCE = 1e-4
MIN_OVERLAP, MAX_NDCG_LOSS = 0.98, 0.005
# Below this many multiply-adds a row, float32 takes less than about 1 ms for 500 rows: nothing to win.
INT8_FROM = 100_000
CALIBRATION_ROWS = 8_192
CHECKED_USERS, CHECKED_ROWS = 8, 2 * TOP  # int8 is not chosen on less: users with so many candidates
CHECK_EVERY = 2  # of the users; the others calibrate


@dataclass(frozen=True, slots=True)
class Agreement:
    """Against the plain graph, over users with more than `TOP` candidates: mean share of the same top 50; mean loss of
    NDCG@50 where the plain scores are the gains; the largest difference of a score, over all rows.
    """

    overlap: float
    ndcg_loss: float
    max_difference: float
    users: int

    @property
    def holds(self) -> bool:
        return self.overlap >= MIN_OVERLAP and self.ndcg_loss <= MAX_NDCG_LOSS


@dataclass(frozen=True, slots=True)
class Choice:
    """int8: how that did where it was tried."""

    arithmetic: Literal["float32", "int8"]
    why: str
    float32: Agreement
    int8: Agreement | None = None

    @property
    def params(self) -> dict[str, object]:
        return asdict(self)


def agreement(plain: NDArray[np.float32], fast: NDArray[np.float32], users: Sequence[NDArray[np.int64]]) -> Agreement:
    """users: the positions of each one's rows."""
    overlaps, losses = [], []
    discount = 1 / np.log2(np.arange(TOP) + 2)
    for rows in users:
        if len(rows) <= TOP:
            continue
        ours, theirs = (np.argsort(-scores[rows], kind="stable")[:TOP] for scores in (fast, plain))
        overlaps.append(len(np.intersect1d(ours, theirs)) / TOP)
        gain = plain[rows].astype(np.float64)
        losses.append(1 - float(gain[ours] @ discount) / max(float(gain[theirs] @ discount), 1e-12))
    difference = float(np.abs(plain - fast).max(initial=0.0))
    if not overlaps:
        return Agreement(1.0, 0.0, difference, 0)
    return Agreement(float(np.mean(overlaps)), float(np.mean(losses)), difference, len(overlaps))


def write_fast(folder: Path, weights: DcnWeights, rows: NDArray[np.float32]) -> Choice | None:
    """Write `FAST_RANKER` beside dcn.onnx; None, and no file, for a model that cannot be folded.

    rows: float32 [R, F], candidates of one user after another, as the funnel brings them.

    Raises:
        ArtifactError: the folded graph and dcn.onnx give a row scores that differ by more than 1e-4.
    """
    if not foldable(weights):
        return None
    users = np.split(np.arange(len(rows)), user_starts(rows)[1:])
    target = folder / FAST_RANKER
    plain = OnnxRanker(open_session(folder / "dcn.onnx")).score(rows)
    onnx.save(folded_graph(fold(weights)), str(target))
    float32 = agreement(plain, _scores(target, rows), users)
    if not float32.max_difference <= FLOAT32_TOLERANCE:
        raise ArtifactError(
            f"{FAST_RANKER} differs from dcn.onnx by {float32.max_difference:.2g}, more than {FLOAT32_TOLERANCE:g}"
        )
    products = multiply_adds(weights)
    if products < INT8_FROM:
        return Choice("float32", f"{products:,} multiply-adds a row: int8 would win nothing", float32)
    checked = [user for user in users[::CHECK_EVERY] if len(user) >= CHECKED_ROWS]
    calibrating = np.concatenate([user for at, user in enumerate(users) if at % CHECK_EVERY] or [np.empty(0, np.int64)])
    if len(checked) < CHECKED_USERS or not len(calibrating):
        return Choice("float32", f"{len(checked)} users to check int8 on, of {CHECKED_USERS}", float32)

    part = target.with_name(FAST_RANKER + ".part")
    every = -(-len(calibrating) // CALIBRATION_ROWS)
    onnx.save(int8_graph(weights, rows[calibrating[::every]]), str(part))
    seen = np.concatenate(checked)
    ends = np.cumsum([len(user) for user in checked])
    places = np.split(np.arange(len(seen)), ends[:-1])
    int8 = agreement(plain[seen], _scores(part, rows[seen]), places)
    if not int8.holds:
        part.unlink()
        return Choice("float32", "int8 ranks too differently", float32, int8)
    part.rename(target)
    return Choice("int8", "the same ranking in less time", float32, int8)


def multiply_adds(weights: DcnWeights) -> int:
    """Of the products that are left after folding, for one row."""
    folded = fold(weights)
    first = [folded.last_cross, folded.first_deep, *([folded.first_cross] if folded.first_cross else [])]
    item = folded.layout.item_dense
    return sum(item * layer[0].shape[1] for layer in first) + sum(
        layer[0].size for layer in (*folded.middle, *folded.deep)
    )


def _scores(graph: Path, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """As they are served."""
    ranker: RowScorer = FoldedRanker(open_session(graph))
    return ranker.score(rows)
