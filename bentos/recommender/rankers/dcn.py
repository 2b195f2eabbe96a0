"""The fast graph of DCN-V2 (Wang et al. 2021): what is linear in a row is folded, and what is the user's is computed
once for all rows of that user (docs/adr/0015). `onnx_graph.py` runs the plain one, layer by layer.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import Session
from features.ranking import FIRST_CATEGORY, FIRST_USER, ITEM_CATEGORICAL, WIDTH

FIRST_USER_CATEGORY = FIRST_CATEGORY + len(ITEM_CATEGORICAL)
CALL_ROWS = 256  # what one call works on stays in the second-level cache
FEW = 8  # rows a user below which users are not worth a call each


class FoldedRanker:
    """float32 rows [R, F] → float32 [R]. A row's score has the same bits alone and beside whatever others, whoever
    their users are."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        starts = user_starts(rows)
        if len(starts) == 1:
            return self._of_one_user(rows)
        if len(starts) * FEW > len(rows):
            return self._run(rows, rows)
        return np.concatenate([self._of_one_user(part) for part in np.split(rows, starts[1:])])

    def _of_one_user(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        parts = [self._run(part, part[:1]) for part in _pieces(rows)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, rows: NDArray[np.float32], user: NDArray[np.float32]) -> NDArray[np.float32]:
        """user: [1, F], or a row each."""
        scores: NDArray[np.float32] = self._session.run(None, {"rows": rows, "user": user})[0]
        return scores


def user_starts(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Where the rows of another user begin: int64, 0 first. Rows whose user columns are equal are one user's."""
    dense, categorical = rows[:, FIRST_USER:FIRST_CATEGORY], rows[:, FIRST_USER_CATEGORY:WIDTH]
    if (dense == dense[:1]).all() and (categorical == categorical[:1]).all():
        return np.zeros(1, np.int64)
    other = (dense[1:] != dense[:-1]).any(axis=1) | (categorical[1:] != categorical[:-1]).any(axis=1)
    return np.concatenate([[0], np.flatnonzero(other) + 1])


def _pieces(rows: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Of equal length, at most `CALL_ROWS`."""
    pieces = max(-(-len(rows) // CALL_ROWS), 1)
    step = -(-len(rows) // pieces)
    return (rows[start : start + step] for start in range(0, max(len(rows), 1), max(step, 1)))
