"""One compute thread behind a bounded queue: native work runs in order, and a full queue is the load shedder.

What has begun goes first: a request that comes here twice would else wait twice for all the others, and everybody would
be half done before anybody is answered.
"""

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from bentos.recommender.average import moved
from contracts.errors import Overloaded

T = TypeVar("T")

LEAST_S = 1e-4  # of CPU: a shorter job says nothing of what else the core does
Job = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class Compute:
    """`await compute(work)` runs `work` on the thread. `depth`: jobs waiting or running before the next is refused.

    The count is kept on the event loop alone, so it needs no lock. A caller that was cancelled leaves its job behind:
    one that has not begun is skipped, one that is running cannot be stopped and keeps its place until it is done.
    """

    def __init__(self, depth: int = 64) -> None:
        self.depth = depth
        self.waiting = 0
        self.not_begun: Counter[str] = Counter()  # jobs that were skipped, as their caller had left
        # What a job takes, averaged over the last few dozen; written by the thread.
        self.job_s = 1e-3  # of CPU time
        self._worked_s = self._took_s = 1e-3  # CPU time, and the clock's, of those that say something of the core
        self._begun: deque[Job] = deque()
        self._new: deque[Job] = deque()
        self._there: SimpleQueue[bool] = SimpleQueue()  # True for each job, False at the end
        self._thread = threading.Thread(target=self._work, name="compute", daemon=True)
        self._thread.start()

    @property
    def stretch(self) -> float:
        """By the clock, in CPU times: what the loop and other processes take of this core. Of sums: a job of 0.3 ms
        that waits 6 ms for its turn takes twenty times its time, and says little of one of 5 ms.
        """
        return max(self._took_s / self._worked_s, 1.0)

    def forget_stretch(self) -> None:
        self._took_s = self._worked_s

    async def __call__(self, work: Callable[[], T], *, begun: bool = False) -> T:
        """`begun`: the request has been here before.

        Raises:
            Overloaded: the queue is full.
        """
        if self.waiting >= self.depth:
            raise Overloaded(f"{self.waiting} requests wait for the compute thread")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self.waiting += 1
        (self._begun if begun else self._new).append((work, future, loop))
        self._there.put(True)
        return await future

    def close(self) -> None:
        """Let the queued work end, then the thread."""
        self._there.put(False)
        self._thread.join(timeout=5)

    def _work(self) -> None:
        while self._there.get():
            job = self._begun.popleft() if self._begun else self._new.popleft()
            work, future, loop = job
            result: Any = None
            error: BaseException | None = None
            if future.cancelled():
                self.not_begun["queue"] += 1
            else:
                began, began_cpu = time.perf_counter(), time.thread_time()
                try:
                    result = work()
                except BaseException as raised:  # belongs to the caller, whatever it is
                    error = raised
                self._learn(time.perf_counter() - began, time.thread_time() - began_cpu)
            try:
                loop.call_soon_threadsafe(self._finish, future, result, error)
            except RuntimeError:  # the loop has closed: nobody waits any more
                return
            del job, work, future, loop, result, error

    def _learn(self, took_s: float, cpu_s: float) -> None:
        self.job_s = moved(self.job_s, cpu_s)
        if cpu_s > LEAST_S:
            self._worked_s = moved(self._worked_s, cpu_s)
            self._took_s = moved(self._took_s, max(took_s, cpu_s))

    def _finish(self, future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
        self.waiting -= 1
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
