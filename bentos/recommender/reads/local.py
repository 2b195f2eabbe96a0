"""Reads of a store on this disk or in this process.

Such a read takes microseconds and never waits: there is nothing to share, to hedge, to keep or to bound, and each of
these would cost more than the read. Only the breaker is left.
"""

import time
from collections import Counter
from collections.abc import Callable

from bentos.recommender.breaker import Breaker
from contracts.errors import Unreachable
from features.online.base import OnlineStore, UserState


class LocalReads:
    waits = False

    def __init__(self, store: OnlineStore, breaker: Breaker, clock: Callable[[], float] = time.perf_counter) -> None:
        self.counts: Counter[str] = Counter()
        self.breakers = {"online_store": breaker}
        self._store = store
        self._breaker = breaker
        self._clock = clock

    async def read_user(self, user_id: str) -> UserState:
        permit = self._breaker.allow(self._clock())
        if permit is None:
            self.counts["refused"] += 1
            raise Unreachable("left alone after failures in a row")
        self.counts["read"] += 1
        try:
            state = await self._store.read_user(user_id)
        except Exception:
            self.counts["failed"] += 1
            self._breaker.bad(permit, self._clock())
            raise
        except BaseException:
            self._breaker.none(permit)
            raise
        self._breaker.good(permit, self._clock())
        return state

    def forget(self, user_id: str) -> None:
        pass
