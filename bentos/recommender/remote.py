"""What a runner in a process of its own offers. Reasons travel as data: an exception's class is lost on the way."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.types import Query, SourceResult, User
from contracts.budgets import Plan

T = TypeVar("T")


class Compute(Protocol):
    """Runs a function on the one compute thread, in order; before others where its request has been there already.

    Raises:
        Overloaded: its queue is full.
    """

    def __call__(self, work: Callable[[], T], /, *, begun: bool = False) -> Awaitable[T]: ...


class RemoteRetrieval(Protocol):
    async def retrieve(
        self, sources: tuple[str, ...], query: Query, user: User, limits: Plan
    ) -> Mapping[str, SourceResult | str]: ...


class RemoteRanking(Protocol):
    """until: `time.perf_counter()` seconds; what is not there by then is a reason."""

    async def score(self, rows: NDArray[np.float32], until: float) -> NDArray[np.float32] | str: ...


class RemoteFallback(Protocol):
    async def light(self, rows: NDArray[np.float32], until: float) -> NDArray[np.float32] | str: ...
