"""Reads of a store across a network: shared, kept for a moment, bounded, hedged, and stopped by a breaker.

    recent? ─ no ─► under way? ─ no ─► room? ─ yes ─► primary ──────────► answer
       └─► answer      └─► wait for it    └─► refused    └ slow or failed ─► replica ─► answer

A read that has begun goes on when those who wait for it give up, for `limit_s` at most: it is the store's to be judged
by, whatever deadlines its callers have.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from bentos.recommender.breaker import DEPENDENCY, Breaker, BreakerPolicy
from bentos.recommender.reads.hedge import P95, HedgeBudget
from bentos.recommender.reads.recent import Recent
from contracts.errors import Overloaded, Unreachable
from features.online.base import OnlineStore, UserState

MOST = 64  # reads under way
OUR_LATENESS = 0.5  # of the limit: a timer that fires so late tells of a busy event loop, not of the store


class _End:
    """One store, with what is known of it."""

    def __init__(self, name: str, store: OnlineStore, policy: BreakerPolicy) -> None:
        self.name = name
        self.store = store
        self.breaker = Breaker(policy)
        self.p95 = P95()


class RemoteReads:
    """
    Args:
        limit_s: what a read may take before it counts as failed.
        most: reads under way at once; the next is refused at once, as a slow store must not gather requests.
        keep_s: how long a state may be used again; 0: not at all.
    """

    waits = True

    def __init__(
        self,
        store: OnlineStore,
        replica: OnlineStore | None = None,
        *,
        limit_s: float,
        most: int = MOST,
        keep_s: float = 0.5,
        policy: BreakerPolicy = DEPENDENCY,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._primary = _End("online_store", store, policy)
        self._replica = None if replica is None else _End("online_store_replica", replica, policy)
        ends = (self._primary, self._replica)
        self.breakers = {end.name: end.breaker for end in ends if end is not None}
        self._limit_s = limit_s
        self._most = most
        self._clock = clock
        self._recent = Recent(keep_s)
        self._hedges = HedgeBudget()
        self._under_way: dict[str, asyncio.Task[UserState]] = {}
        self.reading = 0

    async def read_user(self, user_id: str) -> UserState:
        now = self._clock()
        kept = self._recent.get(user_id, now)
        if kept is not None:
            self.counts["kept"] += 1
            return kept
        task = self._under_way.get(user_id)
        if task is None:
            task = self._begin(user_id, now)
        else:
            self.counts["shared"] += 1
        return await asyncio.shield(task)

    def forget(self, user_id: str) -> None:
        """Nor is a read that is under way shared with anybody who comes later, or kept."""
        self._recent.forget(user_id)
        self._under_way.pop(user_id, None)

    def _begin(self, user_id: str, now: float) -> "asyncio.Task[UserState]":
        if self.reading >= self._most:
            self.counts["full"] += 1
            raise Overloaded(f"{self.reading} reads are under way")
        for end in (self._primary, self._replica):
            permit = None if end is None else end.breaker.allow(now)
            if end is not None and permit is not None:
                break
        else:
            self.counts["refused"] += 1
            raise Unreachable("left alone after failures in a row")
        self.reading += 1
        self.counts["read"] += 1
        self._hedges.earn()
        task = asyncio.get_running_loop().create_task(self._read(user_id, end, permit))
        self._under_way[user_id] = task

        def ended(task: "asyncio.Task[UserState]") -> None:
            self.reading -= 1
            current = self._under_way.get(user_id) is task
            if current:
                del self._under_way[user_id]
            if not task.cancelled() and task.exception() is None and current:
                self._recent.put(user_id, now, task.result())

        task.add_done_callback(ended)
        return task

    async def _read(self, user_id: str, end: _End, permit: int) -> UserState:
        if self._replica is None or end is self._replica:
            return await self._ask(end, permit, user_id)
        loop = asyncio.get_running_loop()
        first = loop.create_task(self._ask(end, permit, user_id))
        tasks = [first]
        try:
            await asyncio.wait(tasks, timeout=end.p95.seconds or self._limit_s)
            if first.done() and first.exception() is None:
                return first.result()
            second = self._second(user_id, hedge=not first.done())
            if second is None:
                return await first
            tasks.append(loop.create_task(second))
            return await self._first_good(tasks)
        finally:
            for task in tasks:
                if not task.cancel() and not task.cancelled():
                    task.exception()  # looked at, so that it is not reported as forgotten

    def _second(self, user_id: str, *, hedge: bool) -> Coroutine[Any, Any, UserState] | None:
        """A read of the replica, if there may be one. hedge: the primary is slow; else it has failed."""
        replica = self._replica
        if replica is None or (hedge and not self._hedges.take()):
            return None
        permit = replica.breaker.allow(self._clock())
        if permit is None:
            return None
        self.counts["hedged" if hedge else "failed_over"] += 1
        return self._ask(replica, permit, user_id)

    async def _first_good(self, tasks: "list[asyncio.Task[UserState]]") -> UserState:
        """The first that has an answer; the error of the last when none has."""
        pending = set(tasks)
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None:
                    if task is tasks[1]:
                        self.counts["replica_won"] += 1
                    return task.result()
            if not pending:
                return tasks[-1].result()  # raises

    async def _ask(self, end: _End, permit: int, user_id: str) -> UserState:
        began = self._clock()
        try:
            async with asyncio.timeout(self._limit_s):
                state = await end.store.read_user(user_id)
        except TimeoutError:
            took = self._clock() - began
            self.counts["late"] += 1
            end.p95.add(took)
            if took > self._limit_s * (1 + OUR_LATENESS):
                end.breaker.none(permit)
            else:
                end.breaker.bad(permit, self._clock())
            raise Unreachable(f"late: no answer in {self._limit_s * 1e3:.0f} ms") from None
        except Exception:
            self.counts["failed"] += 1
            end.breaker.bad(permit, self._clock())
            raise
        except BaseException:  # the other one was faster
            end.p95.add(self._clock() - began)
            end.breaker.none(permit)
            raise
        now = self._clock()
        end.p95.add(now - began)
        end.breaker.good(permit, now)
        return state
