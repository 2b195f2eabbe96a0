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
    if len(rows) <= 128:
        # One row after the other over all items: quicker than along the short side.
        found: NDArray[np.bool_] = np.logical_or.reduce(rows[:, None] == items, axis=0)
        return found
    return np.isin(items, rows)
