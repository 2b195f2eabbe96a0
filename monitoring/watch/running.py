"""Checks and trainings as child processes: started, looked after, ended with the watch.

One at a time in each lane, so that a drift run of minutes holds up no look at the service levels.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Protocol

from monitoring.signals import Signal, signal_of
from monitoring.watch.check import LATE_S
from monitoring.watch.schema import CheckName
from registry.processes.stack import CHILD

LANES: Mapping[str, str] = {"levels": "light", "freshness": "light", "online": "stream"}
HEAVY = "heavy"
RETRAIN = "retrain"
RETRAIN_LATE_S = 6 * 3600.0
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Job:
    """check: one of `CHECKS`, or `retrain`. argv: after the interpreter."""

    check: str
    bento: str
    at_us: int
    argv: tuple[str, ...]
    late_s: float

    @property
    def lane(self) -> str:
        return LANES.get(self.check, RETRAIN if self.check == RETRAIN else HEAVY)

    @property
    def key(self) -> str:
        return f"{self.check}|{self.bento}"


@dataclass(frozen=True, slots=True)
class Finished:
    """problem: why there are no signals; "" when there are. cpu_s: user and system, children included."""

    job: Job
    signals: tuple[Signal, ...] = ()
    problem: str = ""
    cpu_s: float = 0.0
    seconds: float = 0.0
    peak_mb: float = 0.0


class Runner(Protocol):
    def start(self, job: Job) -> bool:
        """False: its lane is busy."""

    def poll(self) -> list[Finished]:
        """What has ended since the last call; what is late is ended first."""

    def busy(self, lane: str) -> bool: ...

    def stop(self) -> None: ...


def check_job(name: CheckName, bento: str, at_us: int, runs: Sequence[Mapping[str, object]] = ()) -> Job:
    words = ["-m", "monitoring.watch.check", name, "--bento", bento, "--at", str(at_us)]
    if runs:
        words += ["--runs", json.dumps(list(runs)[-5:])]
    return Job(name, bento, at_us, tuple(words), LATE_S[name])


@dataclass
class Subprocesses:
    """
    Args:
        folder: for what they find; made. log: what they print.
        env: added to ours.
    """

    folder: Path
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    _running: dict[str, "_Child"] = field(default_factory=dict)
    _ended: list[Finished] = field(default_factory=list)

    def start(self, job: Job) -> bool:
        if job.lane in self._running:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        out = self.folder / f"{job.lane}.json"
        out.unlink(missing_ok=True)
        words = [*job.argv, "--out", str(out)] if job.check != RETRAIN else list(job.argv)
        try:
            process = Popen(
                # The child asks to end with us, also when we are killed.
                [sys.executable, "-I", str(CHILD), str(os.getpid()), str(self.log), "--", sys.executable, *words],
                cwd=ROOT,
                stdin=DEVNULL,
                env={**os.environ, **self.env},
                start_new_session=True,
            )
        except OSError as error:  # no memory, no process left: as a check that crashed
            self._ended.append(Finished(job, problem=f"could not be started: {error.strerror or error}"))
            return True
        self._running[job.lane] = _Child(job, process, out, time.monotonic())
        return True

    def poll(self) -> list[Finished]:
        ended, self._ended = self._ended, []
        for lane, child in list(self._running.items()):
            if (found := child.ended()) is not None:
                del self._running[lane]
                ended.append(found)
        return ended

    def busy(self, lane: str) -> bool:
        return lane in self._running

    def stop(self) -> None:
        for child in self._running.values():
            child.kill()
            child.process.wait()
        self._running.clear()


@dataclass
class _Child:
    job: Job
    process: Popen[bytes]
    out: Path
    began: float
    late: bool = False

    def ended(self) -> Finished | None:
        try:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        except ChildProcessError:
            return Finished(self.job, problem="its end was not seen")
        seconds = time.monotonic() - self.began
        if not pid:
            if seconds > self.job.late_s and not self.late:
                self.late = True
                self.kill()
            return None
        code = self.process.returncode = os.waitstatus_to_exitcode(status)
        self.kill()  # what it has left behind
        cost = (usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss / 1024)
        if self.late:
            return Finished(self.job, (), f"took over {self.job.late_s:g} s", *cost)
        if self.job.check == RETRAIN:
            # 3: refused by the policy, which is an answer.
            return Finished(self.job, (), "" if code in (0, 3) else _end(code), *cost)
        if code:
            return Finished(self.job, (), _end(code), *cost)
        try:
            rows = json.loads(self.out.read_text())
            return Finished(self.job, tuple(signal_of(row) for row in rows), "", *cost)
        except (OSError, ValueError, TypeError) as error:
            return Finished(self.job, (), f"what it left cannot be read: {error}", *cost)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _end(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
