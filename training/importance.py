"""How much of the ranker's AUC hangs on each of its columns: permutation importance (Breiman, Random Forests, 2001).

A column is shuffled among the held-out rows; what the AUC loses is what the ranker had from it. Columns that say the
same in two ways each look less important than they are together. R rows, F columns.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from features.ranking import RowSchema
from training.evaluation import metrics
from training.models.dcn_v2 import RankingRows

MOST_ROWS = 8_000

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def permutation_importance(
    predict: Predict, held_out: RankingRows, schema: RowSchema, *, seed: int
) -> dict[str, float]:
    """Column → AUC lost, never negative; empty where the held-out rows have one class only, as nothing is known then.

    predict: rows float32 [R, F] → scores [R].
    """
    random = np.random.default_rng(seed)
    rows, labels = _some(held_out, random)
    whole = metrics.auc(predict(rows), labels) if len(rows) else float("nan")
    if not np.isfinite(whole):
        return {}
    lost = {}
    for at, name in enumerate(schema.names):
        kept = rows[:, at].copy()
        rows[:, at] = random.permutation(kept)
        lost[name] = max(0.0, whole - metrics.auc(predict(rows), labels))
        rows[:, at] = kept
    return lost


def _some(held_out: RankingRows, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """All positives and as many others as there is room for: AUC does not depend on the share of either."""
    positive = np.flatnonzero(held_out.labels > 0)[: MOST_ROWS // 2]
    others = np.flatnonzero(held_out.labels <= 0)
    room = MOST_ROWS - len(positive)
    if len(others) > room:
        others = random.choice(others, room, replace=False)
    at = np.sort(np.concatenate([positive, others]))
    return held_out.rows[at].copy(), held_out.labels[at]
