"""Logistic regression: the light ranker, and the bundle's where nothing more complex is better."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.rankers.steps import Steps
from contracts.errors import ArtifactError

STEPS = ("steps_x", "steps_y", "steps_tail")  # arrays of the file


class LogisticRanker:
    """sigmoid(((row - mean) / scale) · weights + bias), folded into one affine map. mean, scale, weights: [F].

    steps: isotonic calibration of the log odds, where there is one.
    """

    def __init__(
        self,
        mean: NDArray[np.float64],
        scale: NDArray[np.float64],
        weights: NDArray[np.float64],
        bias: float,
        steps: Steps | None = None,
    ) -> None:
        folded = weights / np.where(scale == 0, 1.0, scale)
        self._weights = folded.astype(np.float32)
        self._bias = np.float32(bias - float(mean @ folded))
        self._steps = steps

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if rows.shape[1:] != self._weights.shape:
            raise ValueError(f"rows of {rows.shape[1:]} for {len(self._weights)} weights")
        # A product by BLAS adds a row up differently beside other rows.
        sums = np.add.reduce(rows * self._weights, axis=1)
        logits = np.clip(sums + self._bias, -60.0, 60.0)
        if self._steps is not None:
            logits = np.clip(self._steps(logits), -60.0, 60.0)
        return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)


def open_logistic(path: Path, width: int, _threads: int = 1) -> LogisticRanker:
    """
    Raises:
        ArtifactError: the file is not one of four plain arrays for rows of `width`, and the three of steps or none.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, scale, weights, bias = (
                np.asarray(file[name], np.float64) for name in ("mean", "scale", "weights", "bias")
            )
            steps = Steps(*(file[name] for name in STEPS)) if STEPS[0] in file else None
    except Exception as error:  # a bad file raises whatever its readers raise
        raise ArtifactError(f"{path} is not a logistic regression: {error}") from error
    if not mean.shape == scale.shape == weights.shape == (width,) or bias.size != 1:
        raise ArtifactError(f"{path} has {weights.shape} weights for {width} columns")
    return LogisticRanker(mean, scale, weights, float(bias.reshape(-1)[0]), steps)
