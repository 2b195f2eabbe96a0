"""The load of this process, as the admission reads it: what waits for the compute thread, how late the loop is, what
answers cost. See admission.py for what is made of it.
"""

import asyncio
import math
import time
from collections.abc import Mapping

from bentos.recommender.admission import Admission, AdmissionPolicy
from bentos.recommender.compute import Compute
from bentos.recommender.types import Slate, User
from contracts.errors import Overloaded
from contracts.serving import Aim

# Stages that do not run on the compute thread, or inside another one.
TICK_S = 0.01
ELSEWHERE = ("store", "hydrate", "rows", "runner.", "retrieval.", "ladder.")


class Load:
    """
    Args:
        ceiling: the best rung that requests may start at; an operator's, whatever the load.
    """

    def __init__(self, compute: Compute, policy: AdmissionPolicy, ceiling: Aim = "full") -> None:
        self.admission = Admission(policy)
        self._compute = compute
        self._ceiling = ceiling
        self._tick: asyncio.TimerHandle | None = None
        self._due = math.inf  # of the next tick, perf_counter seconds

    def watch(self) -> None:
        """Begin to measure how late the loop is; on the loop."""
        now = time.perf_counter()
        self.admission.tick(max(now - self._due, 0.0))
        self._due = now + TICK_S
        self._tick = asyncio.get_running_loop().call_later(TICK_S, self.watch)

    def close(self) -> None:
        if self._tick is not None:
            self._tick.cancel()

    @property
    def queued_s(self) -> float:
        """Seconds of work that waits or runs on the compute thread."""
        return self._compute.waiting * self._compute.job_s

    def aim(self, began: float, left_s: float) -> Aim:
        """
        Args:
            began: `perf_counter` seconds when the loop came to the request.

        Raises:
            Overloaded: not even lists have room.
        """
        start = self.admission.start(began, left_s=left_s, queued_s=self.queued_s)
        if start is None:
            raise Overloaded("requests come faster than even lists can be sent", retry_after_s=1)
        return start if self._ceiling == "full" else _lower(start, self._ceiling)

    def thin(self, user: User) -> str:
        """Why this user is not worth the deep ranker now; empty: worth it."""
        if not self.admission.overloaded:
            return ""
        there = sum(feature.source == "store" for feature in user.used)
        quality = there / len(user.used) if user.used else 1.0
        if not self.admission.thin(quality):
            return ""
        return f"dcn: not asked under load, as {len(user.used) - there} of {len(user.used)} features are defaults"

    def learn(self, slate: Slate) -> None:
        """What this answer took on the compute thread."""
        if slate.ranked_by in ("dcn", "logistic", "retrieval"):
            seconds = on_compute_ms(slate.stages_ms) / 1e3
            self.admission.learn("full" if slate.ranked_by == "dcn" else "simple_ranking", seconds)


def on_compute_ms(stages_ms: Mapping[str, float]) -> float:
    return sum(ms for stage, ms in stages_ms.items() if not stage.startswith(ELSEWHERE))


def _lower(start: Aim, ceiling: Aim) -> Aim:
    order: tuple[Aim, ...] = ("full", "simple_ranking", "retrieval", "lists")
    return max(start, ceiling, key=order.index)
