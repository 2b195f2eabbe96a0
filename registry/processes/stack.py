"""The stack of one home: start its supervisor, ask it, add and remove processes, end all of it."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil

from contracts.errors import NotFound, Refused, StreamRecError, Unreachable
from registry.processes.plan import Plan, Process, State, options, read_state

CHILD = Path(__file__).with_name("child.py")
CODE = Path(__file__).resolve().parents[2]
START_S = 20.0
CLIENT_S = 5.0
MARK = "RUN_BY_STREAMREC"  # in the environment of all that belongs to a stack: its folder (no setting, so no prefix)


class Stack:
    """
    Args:
        home: STREAMREC_HOME; all files are under `home/run/stack`.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home.resolve() / "run" / "stack"
        self._plan = self.folder / "plan.json"
        self._state = self.folder / "state.json"
        self._lock = self.folder / "lock"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether a supervisor holds this home's lock."""
        try:
            descriptor = os.open(self._lock, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    @property
    def state(self) -> State | None:
        return read_state(self._state) if self.running else None

    @property
    def plan(self) -> Plan:
        """
        Raises:
            NotFound: nothing has been started here.
        """
        try:
            return msgspec.json.decode(self._plan.read_bytes(), type=Plan)
        except (FileNotFoundError, msgspec.DecodeError) as error:
            raise NotFound(f"no stack runs in {self.folder}", next_command="streamrec up") from error

    @property
    def sockets(self) -> Path:
        """The private folder of the stack's Unix sockets; short, as such a path may have 107 bytes."""
        return Path(self.plan.endpoint.removeprefix("ipc://")).parent

    def start(self, processes: Callable[[], Sequence[Process]], host: str, port: int, log: Path) -> State:
        """Start the supervisor in the background and wait until it holds its socket.

        Raises:
            Refused: a stack runs here already. Unreachable: it ended at once; names its log.
        """
        if self.running:
            raise Refused(f"a stack already runs in {self.folder.parents[1]}", next_command="streamrec status")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()
        sockets = Path(tempfile.mkdtemp(prefix="streamrec-"))  # 0700
        plan = Plan(
            endpoint=f"ipc://{sockets / 'ctl'}",
            events=f"ipc://{sockets / 'events'}",
            state=str(self._state),
            host=host,
            port=port,
            processes=tuple(processes()),
        )
        part = self._plan.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(plan))  # environments may hold secrets
        part.replace(self._plan)
        self._state.unlink(missing_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            child = self._child = subprocess.Popen(
                [sys.executable, "-m", "registry.processes.arbiter", str(self._plan)],
                cwd=CODE,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=os.environ | {MARK: str(self.folder)},
                start_new_session=True,  # it outlives the command that started it
            )
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if (state := self.state) is not None and state.arbiter == child.pid:
                return state
            if child.poll() is not None:
                shutil.rmtree(sockets, ignore_errors=True)
                raise Unreachable(
                    f"the supervisor ended with {child.returncode}: {_last_line(log)}", next_command=f"tail {log}"
                )
            time.sleep(0.05)
        child.terminate()
        raise Unreachable(f"the supervisor did not start within {START_S:.0f} s", next_command=f"tail {log}")

    def add(self, process: Process) -> None:
        """Start one more kind of process. Nothing happens where one of that name runs.

        Raises:
            Unreachable: the supervisor does not answer.
        """
        state = self.state
        if state is None:
            raise Unreachable("no supervisor runs here", next_command="streamrec up")
        words = options(process, state.arbiter, CHILD, sys.executable)
        answer = self._call("add", name=process.name, start=True, **words)
        if answer.get("status") != "ok" and "already exist" not in str(answer.get("reason")):
            raise StreamRecError(f"the supervisor refused {process.name}: {answer.get('reason')}")

    def remove(self, name: str) -> None:
        """End all processes of that name, in their own time. Nothing happens where there is none.

        Raises:
            Unreachable: the supervisor does not answer.
        """
        answer = self._call("rm", name=name)
        if answer.get("status") != "ok" and "not found" not in str(answer.get("reason")):
            raise StreamRecError(f"the supervisor refused to end {name}: {answer.get('reason')}")

    def stop(self, timeout_s: float = 40.0) -> list[int]:
        """End everything; returns the pids that had to be killed. Idempotent."""
        state = read_state(self._state)
        killed: list[int] = []
        if self.running and state is not None:
            _signal(state.arbiter, signal.SIGTERM)
            if not _until(lambda: not self.running, timeout_s):
                killed.append(state.arbiter)
                _signal(state.arbiter, signal.SIGKILL)
                _until(lambda: not self.running, 5)
        killed += self._sweep()
        if self._child is not None:  # started by this very process: nobody else would reap it
            self._child.wait()
        self._state.unlink(missing_ok=True)
        self._plan.unlink(missing_ok=True)
        return killed

    def _sweep(self) -> list[int]:
        """Nothing of this stack outlives it: what still carries its mark is ended, its sockets are removed."""
        left = [p for p in psutil.process_iter() if self._is_ours(p)]
        # What the supervisor's death has told to end may still be at it: give it the time that it has anyway.
        _, alive = psutil.wait_procs(left, timeout=5) if left else ([], [])
        for process in alive:
            _signal(process.pid, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=5)
        if self._plan.exists():
            shutil.rmtree(self.sockets, ignore_errors=True)
        return [p.pid for p in alive]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.pid != os.getpid() and process.environ().get(MARK) == str(self.folder)
        except psutil.Error:
            return False

    def _call(self, command: str, **properties: Any) -> dict[str, Any]:
        from circus.client import CircusClient
        from circus.exc import CallError

        client = CircusClient(endpoint=self.plan.endpoint, timeout=CLIENT_S)
        try:
            answer: dict[str, Any] = client.send_message(command, **properties)
        except CallError as error:
            raise Unreachable(
                f"the supervisor does not answer to `{command}`: {error}", next_command="streamrec status"
            ) from error
        finally:
            client.stop()
        return answer


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _until(condition: Callable[[], bool], timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""
