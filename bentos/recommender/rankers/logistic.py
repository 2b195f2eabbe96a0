"""The light ranker: one dot product a row, for when the deep one is not there."""

import numpy as np
from numpy.typing import NDArray


class LogisticRanker:
    """sigmoid(((row - mean) / scale) · weights + bias), folded into one affine map. mean, scale, weights: [F]."""

    def __init__(
        self, mean: NDArray[np.float64], scale: NDArray[np.float64], weights: NDArray[np.float64], bias: float
    ) -> None:
        folded = weights / np.where(scale == 0, 1.0, scale)
        self._weights = folded.astype(np.float32)
        self._bias = np.float32(bias - float(mean @ folded))

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.clip(rows @ self._weights + self._bias, -60.0, 60.0)
        return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
