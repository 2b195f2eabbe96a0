"""What the funnel reads users through."""

from collections import Counter
from typing import Protocol

from bentos.recommender.breaker import Breaker
from features.online.base import UserState


class UserReads(Protocol):
    """counts: reads by how they went. breakers: name → that of one store. waits: a read takes so long that other work
    should be done beside it.
    """

    waits: bool
    counts: Counter[str]
    breakers: dict[str, Breaker]

    async def read_user(self, user_id: str) -> UserState:
        """
        Raises:
            Unreachable: the store is away, late, or left alone for a while.
            Overloaded: as many reads are under way as may be.
        """
        ...

    def forget(self, user_id: str) -> None:
        """Something has happened to this user: what was read before is not to be used again."""
        ...
