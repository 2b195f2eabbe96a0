"""DCN-V2 as plain arrays, and what it computes: no framework, so that all who write a graph of it start from here.

R rows, F columns (d dense, then c categorical), W = d + the widths of the embeddings. Row vectors stand on the left:
a layer is `x @ weight + bias`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Layer = tuple[Array, Array]  # weight [in, out], bias [out]


@dataclass(frozen=True, slots=True)
class DcnWeights:
    """The parallel form: score = sigmoid(slope × ([cross(x0), deep(x0)] @ out + out_bias) + offset)."""

    mean: Array  # [d]
    scale: Array  # [d], 0 takes a column out
    clip: float  # standardised values stay within ± this
    tables: Sequence[Array]  # c embeddings [values, width]
    cross: Sequence[Layer]  # [W, W]: x → x0 ⊙ (x @ weight + bias) + x
    deep: Sequence[Layer]  # ReLU after each
    out: Array  # [W + the last deep width]
    out_bias: float
    slope: float = 1.0
    offset: float = 0.0

    @property
    def n_dense(self) -> int:
        return len(self.mean)

    @property
    def n_columns(self) -> int:
        return self.n_dense + len(self.tables)

    @property
    def width(self) -> int:
        return self.n_dense + sum(table.shape[1] for table in self.tables)

    def inputs(self, rows: Array) -> Array:
        """x0 float32 [R, W]: standardised, clipped dense columns, then the embeddings. Indices are clipped too."""
        parts = [np.clip((rows[:, : self.n_dense] - self.mean) * self.scale, -self.clip, self.clip)]
        for at, table in enumerate(self.tables):
            index = np.clip(rows[:, self.n_dense + at], 0, len(table) - 1).astype(np.int64)
            parts.append(table[index])
        return np.concatenate(parts, axis=1)

    def logits(self, rows: Array) -> Array:
        """Before calibration, float32 [R]."""
        first = x = self.inputs(rows)
        for weight, bias in self.cross:
            x = first * (x @ weight + bias) + x
        deep = first
        for weight, bias in self.deep:
            deep = np.maximum(deep @ weight + bias, 0)
        result: Array = np.concatenate([x, deep], axis=1) @ self.out + np.float32(self.out_bias)
        return result
