"""The inputs of the two-tower's user side: one builder for training, evaluation and serving. Pure NumPy.

Shapes: B users, H = 10 places of history, A attributes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.serving import HISTORY_LENGTH

MAX_AGE_H = 24.0 * 365 * 5


class AttributeVocab:
    """The categorical attributes of a user: names in order, the index of each value, and what is known of each user.

    columns: A names (manifest.params["attributes"]); values: column → its values, "" (unknown) at 0 (vocab.json);
    stored: int32 [U, A], each known user's own values (user_attributes.npy), or None.
    """

    def __init__(
        self, columns: Sequence[str], values: Mapping[str, Sequence[str]], stored: NDArray[np.int32] | None = None
    ) -> None:
        self.columns = tuple(columns)
        self._index = [{value: i for i, value in enumerate(values[column]) if i} for column in self.columns]
        self._stored = stored

    def row(self, user_row: int, context: Mapping[str, str]) -> NDArray[np.int64]:
        """int64 [1 + A]: user row + 1 (0 unknown), then the attributes.

        What the request says goes before what is stored; a value that training never met counts as not said.
        """
        out = np.zeros(1 + len(self.columns), dtype=np.int64)
        out[0] = user_row + 1
        if self._stored is not None and user_row >= 0:
            out[1:] = self._stored[user_row]
        for position, column in enumerate(self.columns, start=1):
            said = self._index[position - 1].get(context.get(column, ""), 0)
            if said:
                out[position] = said
        return out


def user_inputs(
    histories: Sequence[NDArray[np.int32]],
    ages_h: Sequence[NDArray[np.float32]],
    attributes: NDArray[np.int64],
) -> dict[str, NDArray[np.generic]]:
    """The named inputs of two_tower.onnx.

    histories: B arrays of item rows, newest first (-1, an unknown item, is left out); ages_h: the age of each in hours;
    attributes: int64 [B, 1 + A], rows of `AttributeVocab.row`.
    """
    batch = len(histories)
    rows = np.full((batch, HISTORY_LENGTH), -1, dtype=np.int64)
    ages = np.zeros((batch, HISTORY_LENGTH), dtype=np.float32)
    for b, (history, age) in enumerate(zip(histories, ages_h, strict=True)):
        known = history >= 0
        kept = history[known][:HISTORY_LENGTH]
        rows[b, : len(kept)] = kept
        ages[b, : len(kept)] = age[known][:HISTORY_LENGTH]
    return padded_inputs(rows, ages, attributes)


def padded_inputs(
    rows: NDArray[np.int64], ages_h: NDArray[np.float32], attributes: NDArray[np.int64]
) -> dict[str, NDArray[np.generic]]:
    """As `user_inputs`, from int64 [B, H] item rows with -1 as padding and float32 [B, H] ages."""
    ages = np.fmin(np.fmax(ages_h, np.float32(0)), np.float32(MAX_AGE_H))  # NaN counts as 0
    return {
        "history": rows.astype(np.int64) + 1,
        "history_age_h": np.where(rows >= 0, ages, np.float32(0)).astype(np.float32),
        "attributes": np.ascontiguousarray(attributes, dtype=np.int64),
    }
