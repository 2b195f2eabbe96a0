"""What a filter is. Failure policy of every filter: refuse. One that raises lets nothing through."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.types import Candidates, Query, User


class Filter(Protocol):
    name: str

    def keep(self, query: Query, user: User, candidates: Candidates) -> NDArray[Any]:
        """bool [K], True for those that may stay."""
        ...


def among(items: NDArray[np.int32], rows: NDArray[np.int32]) -> NDArray[np.bool_]:
    """bool [K]: which of K items are among R rows. For few of both a fifth of what `np.isin` costs."""
    if len(items) * len(rows) <= 4_096:
        found: NDArray[np.bool_] = (items[:, None] == rows).any(axis=1)
        return found
    return np.isin(items, rows)
