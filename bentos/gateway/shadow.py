"""Mirrored requests: to the candidate, off the response path, and never more than a bounded number of them.

What does not fit is dropped and counted. A shadow that hangs holds `CONCURRENCY` calls until they are late, and its
breaker then keeps the rest away; one that is down costs a few refused connections.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from bentos.gateway.answer import Answering, Ask, Given, Try
from bentos.gateway.comparison import compare
from bentos.gateway.metrics import GatewayMetrics
from bentos.gateway.routes import Routes, Step
from bentos.recommender.request_ids import new_request_id
from contracts.attempts import Compared

log = logging.getLogger("streamrec.gateway")

QUEUE = 64
CONCURRENCY = 4
MAX_BODY_BYTES = 64 << 10  # of a mirrored request: the queue is bounded in bytes, too
MAX_WAIT_S = 2.0  # one that waited longer tells little of its moment


@dataclass(frozen=True, slots=True)
class Mirrored:
    routes: Routes
    ask: Ask
    given: Given
    queued: float  # monotonic seconds


class Shadow:
    """
    Args:
        record: gets each call that was made, with the comparison where there is one.
    """

    def __init__(
        self,
        answering: Answering,
        metrics: GatewayMetrics,
        record: Callable[[Mirrored, Try, Compared | None], None],
        deadline_s: float,
        *,
        queue: int = QUEUE,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._answering = answering
        self._record = record
        self._deadline_s = deadline_s
        self._queue: asyncio.Queue[Mirrored] = asyncio.Queue(queue)
        self._concurrency = concurrency
        self._tasks: list[asyncio.Task[None]] = []
        self._results = {
            name: metrics.shadow.labels(name) for name in ("mirrored", "full", "large", "open", "old", "broken")
        }

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._concurrency)]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def offer(self, routes: Routes, ask: Ask, given: Given) -> None:
        """Mirror this request if the share has it and there is room. Never waits, never raises."""
        release = routes.table.release
        assigned = given.assigned
        if release is None or not assigned.shadow_eligible or assigned.forced or assigned.variant == "candidate":
            return
        if not routes.mirrors(ask.request_id):
            return
        if len(ask.body) > MAX_BODY_BYTES:
            self._results["large"].inc()
            return
        try:
            self._queue.put_nowait(Mirrored(routes, ask, given, time.monotonic()))
        except asyncio.QueueFull:
            self._results["full"].inc()

    async def _work(self) -> None:
        while True:
            mirrored = await self._queue.get()
            try:
                await self._mirror(mirrored)
            except Exception:
                self._results["broken"].inc()
                log.exception("a mirrored request failed here")

    async def _mirror(self, mirrored: Mirrored) -> None:
        routes, given = mirrored.routes, mirrored.given
        now = time.monotonic()
        if now - mirrored.queued > MAX_WAIT_S:
            self._results["old"].inc()
            return
        release = routes.table.release
        if release is None:
            return
        ask = replace(mirrored.ask, request_id=new_request_id(), deadline=now + self._deadline_s)
        step = Step("candidate", release.candidate, 1.0)
        made = await self._answering.ask(routes, step, given.assigned, ask, routes.shadow_breaker, shadow=True)
        for one in made:
            if one.outcome == "open":
                self._results["open"].inc()
                continue
            self._results["mirrored"].inc()
            answer = one.answer
            compared = compare(answer.items, given.answer.items, given.ms_served) if answer else None
            self._record(mirrored, one, compared)
