"""The load of this process, as the admission reads it: what waits for the compute thread, how late the loop is, what
answers cost. See admission.py for what is made of it.
"""

import asyncio
import math
import time
from collections.abc import Mapping

from bentos.recommender.admission import Admission, AdmissionPolicy, Computed
from bentos.recommender.compute import Compute
from bentos.recommender.types import Slate, User
from contracts.errors import Overloaded
from contracts.serving import RANKERS, UNRANKED, Aim

TICK_S = 0.01
# Stages that do not run on the compute thread, or inside another one.
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
        """CPU seconds of work that waits or runs on the compute thread."""
        return self._compute.waiting * self._compute.job_s

    def aim(self, began: float, left_s: float) -> Aim:
        """The rung to start at; it counts as work of this process until `done`.

        Args:
            began: `perf_counter` seconds when the loop came to the request.

        Raises:
            Overloaded: not even lists have room.
        """
        before, compute = self.admission.overloaded, self._compute
        start = self.admission.start(began, left_s=left_s, queued_s=self.queued_s, stretch=compute.stretch)
        if before and not self.admission.overloaded:
            compute.forget_stretch()  # that was beside a flood of lists, with few jobs to learn it from
        if start is None:
            raise Overloaded("requests come faster than even lists can be sent", retry_after_s=1)
        aim = start if self._ceiling == "full" else _lower(start, self._ceiling)
        if aim == "lists" and not self.admission.reads():
            aim = "at_hand"
        if aim not in UNRANKED:
            self.admission.let_in(_computed(aim))
        return aim

    def done(self, aim: Aim) -> None:
        """A request that `aim` let in has its answer, or its client has left."""
        if aim not in UNRANKED:
            self.admission.done(_computed(aim))

    def thin(self, user: User) -> str:
        """Why this user is not worth the bundle's ranker now; empty: worth it."""
        if not self.admission.overloaded:
            return ""
        there = sum(feature.source == "store" for feature in user.used)
        quality = there / len(user.used) if user.used else 1.0
        if not self.admission.thin(quality):
            return ""
        return f"ranker: not asked under load, as {len(user.used) - there} of {len(user.used)} features are defaults"

    def learn(self, slate: Slate) -> None:
        """What this answer took of the compute thread's CPU.

        Not by the clock: that has in it what the loop and other processes took of the core meanwhile. Under an overload
        of cheap answers it is a multiple, and would say that the overload goes on when it is over.
        """
        if slate.ranked_by in (*RANKERS, "logistic", "retrieval"):
            seconds = on_compute_ms(slate.stages_ms) / 1e3 / self._compute.stretch
            self.admission.learn("full" if slate.ranked_by in RANKERS else "simple_ranking", seconds)


def on_compute_ms(stages_ms: Mapping[str, float]) -> float:
    return sum(ms for stage, ms in stages_ms.items() if not stage.startswith(ELSEWHERE))


def _computed(aim: Aim) -> Computed:
    return "full" if aim == "full" else "simple_ranking"


def _lower(start: Aim, ceiling: Aim) -> Aim:
    order: tuple[Aim, ...] = ("full", "simple_ranking", "retrieval", "lists", "at_hand")
    return max(start, ceiling, key=order.index)
