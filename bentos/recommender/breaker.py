"""When to stop asking somebody: a breaker for each dependency. Pure: the clock is an argument.

    closed ── too many failures ──► open ── time is up ──► half open ── enough good probes ──► closed
                                     ▲                         │
                                     └───── a bad probe ───────┘   (each time it stays open for longer)

Late answers count as failures, unless the caller gave less time than is fair. A result of a request that was let
through in an earlier state counts for nothing.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from contracts.errors import Unreachable

State = Literal["closed", "open", "half_open"]
STATES: dict[str, float] = {"closed": 0, "half_open": 1, "open": 2}  # as a gauge
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """Opens on `consecutive` failures in a row, or on a share of failures over `share` among at least `least` results
    of the last `window_s`. `probes` real requests at once go through while half open; `good` in a row close it.
    """

    consecutive: int = 5
    share: float = 0.5
    least: int = 20
    window_s: int = 10
    open_s: float = 0.5
    open_max_s: float = 5.0
    probes: int = 1
    good: int = 3


def dependency(open_s: float = 30.0) -> BreakerPolicy:
    """For what one serving process depends on: the online store, a ranker, a runner's process, the event log.

    A Bento of a routing table has the default one: the gateway has another Bento to ask at once.
    """
    return BreakerPolicy(open_s=open_s, open_max_s=open_s, probes=3, good=3)


DEPENDENCY = dependency()


class Breaker:
    __slots__ = (
        "_bad_in_a_row",
        "_buckets",
        "_good",
        "_opened",
        "_policy",
        "_probing",
        "_until",
        "generation",
        "state",
    )

    def __init__(self, policy: BreakerPolicy = BreakerPolicy()) -> None:
        self._policy = policy
        self.state: State = "closed"
        self.generation = 0  # changes with the state
        self._bad_in_a_row = 0
        self._buckets: deque[list[int]] = deque()  # [second, good, bad]
        self._opened = 0  # times in a row, for the back-off
        self._until = 0.0
        self._probing = 0
        self._good = 0

    def allow(self, now: float) -> int | None:
        """A permit that `good`, `bad` or `none` must give back once, or None: do not ask."""
        if self.state == "open" and now >= self._until:
            self._move("half_open")
        if self.state == "closed":
            return self.generation
        if self.state == "half_open" and self._probing < self._policy.probes:
            self._probing += 1
            return self.generation
        return None

    def good(self, permit: int, now: float) -> None:
        if permit != self.generation:
            return
        if self.state == "half_open":
            self._probing -= 1
            self._good += 1
            if self._good >= self._policy.good:
                self._opened = 0
                self._move("closed")
            return
        self._bad_in_a_row = 0
        self._count(now, 1)

    def bad(self, permit: int, now: float) -> None:
        if permit != self.generation:
            return
        if self.state == "half_open":
            self._open(now)
            return
        self._bad_in_a_row += 1
        good, bad = self._count(now, 2)
        enough = good + bad >= self._policy.least
        if self._bad_in_a_row >= self._policy.consecutive or (enough and bad > self._policy.share * (good + bad)):
            self._open(now)

    def none(self, permit: int) -> None:
        """The request told nothing: its caller gave up."""
        if permit == self.generation and self.state == "half_open":
            self._probing -= 1

    def _open(self, now: float) -> None:
        self._until = now + min(self._policy.open_s * 2.0 ** min(self._opened, 30), self._policy.open_max_s)
        self._opened += 1
        self._move("open")

    def _move(self, state: State) -> None:
        self.state = state
        self.generation += 1
        self._bad_in_a_row = self._probing = self._good = 0
        self._buckets.clear()

    def _count(self, now: float, column: int) -> tuple[int, int]:
        """Good and bad results of the window, this one included. A clock that jumps back opens no new bucket."""
        second = int(now)
        buckets = self._buckets
        if not buckets or buckets[-1][0] < second:
            buckets.append([second, 0, 0])
        buckets[-1][column] += 1
        while buckets[0][0] <= buckets[-1][0] - self._policy.window_s:
            buckets.popleft()
        return sum(b[1] for b in buckets), sum(b[2] for b in buckets)


async def guarded(
    breaker: Breaker, name: str, call: Callable[[], Awaitable[T]], clock: Callable[[], float] = time.monotonic
) -> T:
    """`call` through a breaker that heeds `Unreachable`; other errors are the caller's own affair.

    Raises:
        Unreachable: of `call`, or at once while `name` is left alone.
    """
    permit = breaker.allow(clock())
    if permit is None:
        raise Unreachable(f"{name} is left alone after failures in a row")
    try:
        done = await call()
    except Unreachable:
        breaker.bad(permit, clock())
        raise
    except BaseException:
        breaker.none(permit)
        raise
    breaker.good(permit, clock())
    return done
