"""The light ranker: logistic regression over the dense columns of the same rows, as four arrays.

score = sigmoid(((row − mean) / scale) · weights + bias); categorical columns have weight 0.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from contracts.framing import Costs
from features.ranking import RowSchema
from training.models.dcn_v2 import RankingRows, platt, standardise


@dataclass(frozen=True, slots=True)
class Logistic:
    """mean, scale, weights: float32 [F]."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    weights: NDArray[np.float32]
    bias: float

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [R]."""
        logits = ((rows - self.mean) / self.scale) @ self.weights + self.bias
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -40, 40))), np.float32)

    def save(self, path: Path) -> None:
        """`logistic.npz`, by rename."""
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.savez(file, mean=self.mean, scale=self.scale, weights=self.weights, bias=np.float32(self.bias))
        part.rename(path)


def fit_logistic(
    schema: RowSchema,
    train: RankingRows,
    held_out: RankingRows,
    *,
    seed: int,
    costs: Costs | None = None,
    max_rows: int = 200_000,
) -> Logistic:
    """Fit on `train`, calibrate on `held_out` (on `train` when that has no positive). One class only: the base rate.

    costs: of errors; with the gains of the rows they are the weights of the rows.
    """
    n_columns = len(schema.columns)
    dense = [at for at, column in enumerate(schema.columns) if column.kind == "dense"]
    mean, inverse = standardise(train.rows, schema)
    full_mean, full_scale = np.zeros(n_columns, np.float32), np.ones(n_columns, np.float32)
    full_mean[dense] = mean
    full_scale[dense] = np.where(inverse > 0, 1 / np.where(inverse > 0, inverse, 1), 1)
    weights = np.zeros(n_columns, np.float32)
    bias = 0.0
    if 0 < train.labels.sum() < len(train.labels):
        positive = np.flatnonzero(train.labels)
        negative = np.flatnonzero(train.labels == 0)
        random = np.random.default_rng(seed)
        room = max(max_rows - len(positive), len(positive))
        if len(negative) > room:
            negative = np.sort(random.choice(negative, room, replace=False))
        chosen = np.concatenate([positive, negative])
        values = (train.rows[chosen][:, dense] - mean) * inverse
        model = LogisticRegression(C=0.1, max_iter=200, random_state=seed)
        model.fit(np.clip(values, -10, 10), train.labels[chosen], sample_weight=train.weights(costs or Costs())[chosen])
        weights[dense] = np.where(inverse > 0, model.coef_[0], 0.0)
        bias = float(model.intercept_[0])
    source = held_out if held_out.labels.any() else train
    logits = ((source.rows - full_mean) / full_scale) @ weights + bias
    slope, offset = platt(logits, source.labels)
    return Logistic(full_mean, full_scale, (weights * slope).astype(np.float32), bias * slope + offset)
