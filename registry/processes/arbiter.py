"""The supervisor of `streamrec up`: `python -m registry.processes.arbiter PLAN.json`, on the API of circus.

What it adds to circus: a process that dies is started again with back-off and never takes the others down with it, the
state of all is in a file, and everything ends with it. Bentos come and go by its `add` and `rm` commands.
"""

import contextlib
import fcntl
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from circus import logger
from circus.arbiter import Arbiter
from circus.sockets import CircusSocket
from circus.watcher import Watcher
from prometheus_client.multiprocess import mark_process_dead
from tornado import gen, ioloop

from contracts.errors import Refused
from registry.processes.plan import Plan, Running, State, options

CHILD = Path(__file__).with_name("child.py")
CHECK_S = 0.2
STATE_S = 1.0
RESTART_WAIT_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
FORGET_S = 60.0  # a process that lived longer is no longer blamed for an old death


@dataclass(slots=True)
class Deaths:
    """The deaths of one kind of process, and when it may be started again."""

    times: list[float] = field(default_factory=list)
    last_exit: int | None = None
    again_at: float = 0.0

    def add(self, now: float, exit_code: int | None) -> None:
        self.times = [*(t for t in self.times if now - t < FORGET_S), now]
        self.last_exit = exit_code
        self.again_at = now + RESTART_WAIT_S[min(len(self.times), len(RESTART_WAIT_S)) - 1]


class Supervisor(Arbiter):
    """circus's arbiter, except that a process which is not there is a matter of that process alone."""

    def __init__(self, plan: Plan, listener: CircusSocket) -> None:
        super().__init__([], plan.endpoint, plan.events, check_delay=CHECK_S, sockets=[listener])
        self._state_path = Path(plan.state)
        self._host, self._listener = plan.host, listener
        self._deaths: dict[str, Deaths] = {}
        self._written = (0.0, b"")

    def add_plan(self, plan: Plan) -> None:
        for process in plan.processes:
            words = options(process, os.getpid(), CHILD, sys.executable)
            self.watchers.append(Watcher(process.name, words["cmd"], args=words["args"], **words["options"]))

    @gen.coroutine
    def manage_watchers(self) -> Any:
        if self._stopping or self._exclusive_running_command is not None:
            return  # its turn comes again
        before = {w.name: set(w.processes) for w in self.watchers}
        self._note_exits()
        now = time.monotonic()
        for watcher in self.iter_watchers():
            gone = len(before[watcher.name] - set(watcher.processes))
            deaths = self._deaths.setdefault(watcher.name, Deaths())
            for _ in range(gone):
                deaths.add(now, deaths.last_exit)
                logger.warning("%s ended with %s", watcher.name, deaths.last_exit)
            missing = watcher.numprocesses - len(watcher.processes)
            if missing > 0 and now >= deaths.again_at and not watcher.is_stopping() and not watcher.is_stopped():
                for _ in range(missing):
                    if watcher.spawn_process() is False:
                        deaths.add(now, None)
                        break
        self._deaths = {w.name: self._deaths[w.name] for w in self.watchers if w.name in self._deaths}
        self.write_state(now)

    def _note_exits(self) -> None:
        """Reap what has died, remembering how. Only our own children: the arbiter has no others."""
        owners = {p.pid: w for w in self.watchers for p in w.processes.values()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            if pid in owners:
                watcher = owners[pid]
                self._deaths.setdefault(watcher.name, Deaths()).last_exit = os.waitstatus_to_exitcode(status)
                watcher.reap_process(pid, status)
                if folder := (watcher.env or {}).get("PROMETHEUS_MULTIPROC_DIR"):
                    # What holds only while a process lives: the others, who share the folder, would add it up for ever.
                    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
                # What it left behind would hold its port against its successor; each has a group of its own.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    def write_state(self, now: float) -> None:
        running = {
            w.name: Running(
                pids=tuple(sorted(w.processes)),
                wanted=w.numprocesses,
                deaths=len(self._deaths[w.name].times) if w.name in self._deaths else 0,
                last_exit=self._deaths[w.name].last_exit if w.name in self._deaths else None,
                again_in_s=round(max(0.0, self._deaths[w.name].again_at - now), 1) if w.name in self._deaths else 0.0,
            )
            for w in self.watchers
        }
        content = msgspec.json.encode(running)
        written, before = self._written
        if content == before and now - written < STATE_S:
            return
        url = f"http://{self._host}:{self._listener.getsockname()[1]}"
        state = State(os.getpid(), url, time.time_ns() // 1000, running)
        part = self._state_path.with_suffix(".part")
        with contextlib.suppress(OSError):  # a full disk must not end the supervisor
            part.write_bytes(msgspec.json.encode(state))
            part.replace(self._state_path)
        self._written = (now, content)


def hold_lock(path: Path) -> int:
    """One supervisor a home, for as long as this process lives.

    Raises:
        Refused: another one runs.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Refused(f"a stack already runs here ({path})", next_command="streamrec status") from error
    return descriptor


def main() -> None:
    path = Path(sys.argv[1])
    plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    hold_lock(path.with_name("lock"))
    for address in (plan.endpoint, plan.events):
        Path(address.removeprefix("ipc://")).unlink(missing_ok=True)
    listener = CircusSocket("front", host=plan.host, port=plan.port, blocking=True)
    supervisor = Supervisor(plan, listener)
    supervisor.add_plan(plan)
    try:
        supervisor.start()
    finally:
        Path(plan.state).unlink(missing_ok=True)
        ioloop.IOLoop.current().close(all_fds=False)


if __name__ == "__main__":
    main()
