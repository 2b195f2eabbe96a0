"""Is there one column that alone knows the answer? A label that slipped into a feature looks like that.

Kaufman et al., "Leakage in data mining", TKDD 2012. R rows, F columns.
"""

import numpy as np
from numpy.typing import NDArray

from contracts.checklist import TRAIN
from contracts.evidence import Check, Verdict
from features.ranking import RowSchema
from training.evaluation.metrics import auc, auc_se
from training.models.dcn_v2 import RankingRows

FAIL_AUC, DOUBT_AUC = 0.95, 0.90
MOST_ROWS = 30_000
LEAST_POSITIVES = 20
Z = 1.96


def alone(rows: RankingRows, schema: RowSchema, *, seed: int) -> dict[str, tuple[float, float]]:
    """Column → (its AUC, at least a half; its error). Empty where one class has too few rows.

    A categorical column is read as the share of positives that its value had among the other half of the users.
    """
    random = np.random.default_rng(seed)
    positive, others = np.flatnonzero(rows.labels > 0), np.flatnonzero(rows.labels <= 0)
    if min(len(positive), len(others)) < LEAST_POSITIVES:
        return {}
    some = [random.choice(part, min(len(part), MOST_ROWS // 2), replace=False) for part in (positive, others)]
    at = np.sort(np.concatenate(some))
    labels, half = rows.labels[at], rows.users[at] % 2
    yes, no = len(some[0]), len(some[1])
    found = {}
    for number, column in enumerate(schema.columns):
        values = rows.rows[at, number].astype(np.float64)
        if column.kind == "categorical":
            values = _rates(values.astype(np.int64), labels, half)
        if values.min() == values.max():
            continue
        value = auc(values, labels)
        found[column.name] = (0.5 + abs(value - 0.5), auc_se(value, yes, no))
    return found


def _rates(codes: NDArray[np.int64], labels: NDArray[np.int8], half: NDArray[np.int64]) -> NDArray[np.float64]:
    """Out of fold, so that a rare value does not know its own label."""
    out = np.zeros(len(codes))
    size = int(codes.max(initial=0)) + 1
    for fold in (0, 1):
        other = half != fold
        prior = float(labels[other].mean()) if other.any() else 0.0
        count = np.bincount(codes[other], minlength=size)
        hits = np.bincount(codes[other], labels[other], minlength=size)
        rate = (hits + 5 * prior) / (count + 5)
        out[half == fold] = rate[codes[half == fold]]
    return out


def no_feature_too_good(rows: RankingRows, schema: RowSchema, *, seed: int) -> Check:
    found = alone(rows, schema, seed=seed)
    if not found:
        return Check(
            name="leakage_single_feature",
            verdict="inconclusive",
            detail=f"{int(rows.labels.sum())} positive rows of {len(rows.labels)}: too few to tell",
            command=TRAIN,
        )
    order = sorted(found, key=lambda name: -found[name][0])
    guilty = [name for name in order if found[name][0] - Z * found[name][1] > FAIL_AUC]
    doubtful = [name for name in order if found[name][0] > DOUBT_AUC]
    verdict: Verdict = "fail" if guilty else "inconclusive" if doubtful else "pass"
    best = ", ".join(f"{name} {found[name][0]:.3f}" for name in (guilty or doubtful or order)[:3])
    return Check(
        name="leakage_single_feature",
        verdict=verdict,
        detail=f"highest AUC of one column alone: {best} (fails above {FAIL_AUC:g}, in doubt above {DOUBT_AUC:g})",
        figures={"best_single_auc": found[order[0]][0]},
        command=TRAIN,
    )
