"""What a filter is. Failure policy of every filter: refuse. One that raises lets nothing through."""

from typing import Any, Protocol

from numpy.typing import NDArray

from bentos.recommender.types import Candidates, Query, User


class Filter(Protocol):
    name: str

    def keep(self, query: Query, user: User, candidates: Candidates) -> NDArray[Any]:
        """bool [K], True for those that may stay."""
        ...
