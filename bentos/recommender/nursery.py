"""Workers forked from one process that has imported everything: the libraries, 90 MB of them, are in memory once.

The process itself serves nothing and starts no thread: what it holds when it forks, its children have too, and a lock
that some thread held would stay shut in them for ever. Models are loaded by each child; their arrays are mapped files.
"""

import logging
import math
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from prometheus_client.multiprocess import mark_process_dead

from contracts.parent import end_with_parent

log = logging.getLogger("streamrec.serving")

NOT_STARTED = 3  # exit code of a child that could not serve, uvicorn's too
SETTLED_S = 10.0
AGAIN_S = (0.0, 0.5, 1.0, 2.0, 5.0)  # before a child is started again, by its ends of the last minute
LOOK_S = 0.05


class Nursery:
    """
    Args:
        serve: what a child does until it is told to end; an exception or `SystemExit` is its exit code.
        patience_s: from SIGTERM to SIGKILL.
    """

    def __init__(self, workers: int, serve: Callable[[], None], patience_s: float = 16.0) -> None:
        self._serve = serve
        self._patience_s = patience_s
        self._kill_at = math.inf
        self._pids: dict[int, int] = {}  # pid → worker
        self._due = dict.fromkeys(range(1, workers + 1), 0.0)  # worker → when it is to be started
        self._ends: dict[int, list[float]] = {}
        self._stopping = False
        self._code = 0
        self._began = time.monotonic()

    def run(self) -> None:
        """Until SIGTERM or SIGINT, and then until the last child has ended.

        Raises:
            SystemExit: at the very beginning a child could not start; the others will not either.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while self._pids or not self._stopping:
            self._start_due()
            self._reap()
            if time.monotonic() >= self._kill_at:  # it hangs, and must not outlive this process
                self._signal(signal.SIGKILL)
            time.sleep(LOOK_S)
        if self._code:
            raise SystemExit(self._code)

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker, at in list(self._due.items()):
            if now >= at and not self._stopping:
                del self._due[worker]
                self._start(worker)

    def _start(self, worker: int) -> None:
        parent = os.getpid()
        # A signal between the fork and the child's own handlers would run those of this process.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        pid = os.fork()
        if pid == 0:
            self._be(parent)
        self._pids[pid] = worker
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))

    def _be(self, parent: int) -> NoReturn:
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
            end_with_parent(parent)
            self._serve()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            log.exception("a worker failed")
        finally:
            os._exit(code)  # what is registered for the end of the process is the parent's

    def _reap(self) -> None:
        while self._pids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            worker = self._pids.pop(pid)
            if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
                mark_process_dead(pid)  # type: ignore[no-untyped-call]
            if self._stopping:
                continue
            now, code = time.monotonic(), os.waitstatus_to_exitcode(status)
            if code == NOT_STARTED and now - self._began < SETTLED_S:
                self._code = code
                self._end_children()
                continue
            ends = self._ends[worker] = [*(t for t in self._ends.get(worker, ()) if now - t < 60), now]
            wait = AGAIN_S[min(len(ends), len(AGAIN_S)) - 1]
            log.error("worker %d ended with exit code %d; again in %s s", worker, code, wait)
            self._due[worker] = now + wait

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._end_children()

    def _end_children(self) -> None:
        self._stopping = True
        self._kill_at = min(self._kill_at, time.monotonic() + self._patience_s)
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        for pid in self._pids:
            os.kill(pid, number)
