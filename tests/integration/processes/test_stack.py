"""The supervisor with real processes: restarts, additions, the end of everything."""

import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from contracts.errors import Refused, Unreachable
from registry.processes.plan import Process, Running
from registry.processes.stack import MARK, Stack

SLEEPER = "import time\nwhile True: time.sleep(0.1)"
SERVER = """
import http.server, os, socket, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(os.getpid()).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Answer, bind_and_activate=False)
server.socket = socket.socket(fileno=int(sys.argv[1]))
server.serve_forever()
"""


def until(condition: Callable[[], object], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("the condition did not come true")


def process(stack: Stack, name: str, code: str, *words: str, count: int = 1) -> Process:
    return Process(
        name=name,
        argv=(sys.executable, "-c", code, *words),
        cwd=str(stack.folder.parent),
        log=str(stack.folder / f"{name}.log"),
        env={**os.environ, MARK: str(stack.folder)},
        count=count,
        stop_s=2,
    )


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    yield stack
    stack.stop(10)


def start(stack: Stack, *processes: Process) -> None:
    stack.start(lambda: processes, "127.0.0.1", 0, stack.folder / "stack.log")
    until(lambda: stack.state and all(len(r.pids) == r.wanted for r in stack.state.processes.values()))


def running(stack: Stack, name: str) -> Running:
    state = stack.state
    return state.processes.get(name, Running((), 0, 0)) if state else Running((), 0, 0)


def pids(stack: Stack, name: str) -> tuple[int, ...]:
    return running(stack, name).pids


def test_a_killed_process_comes_back_and_the_others_stay(stack: Stack) -> None:
    start(stack, process(stack, "a", SLEEPER), process(stack, "b", SLEEPER))
    first, other = pids(stack, "a"), pids(stack, "b")
    os.kill(first[0], signal.SIGKILL)
    until(lambda: pids(stack, "a") and pids(stack, "a") != first)
    assert pids(stack, "b") == other
    assert running(stack, "a").last_exit == -signal.SIGKILL


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile True: time.sleep(0.1)"])
open(sys.argv[1], "a").write(f"{child.pid}\\n")
while True: time.sleep(0.1)
"""


def test_what_a_killed_process_leaves_behind_is_ended_before_it_is_started_again(stack: Stack, tmp_path: Path) -> None:
    told = tmp_path / "children"
    start(stack, process(stack, "a", PARENT, str(told)))
    until(told.exists)
    until(lambda: told.read_text().count("\n") == 1)
    child = int(told.read_text())
    os.kill(pids(stack, "a")[0], signal.SIGKILL)
    until(lambda: told.read_text().count("\n") == 2)
    until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


MEASURES = """
import os, sys, time
from prometheus_client import Gauge
breaker = Gauge("breaker_state", "", multiprocess_mode="livemax")
if not os.path.exists(sys.argv[1]):
    breaker.set(2)
    open(sys.argv[1], "w").close()
while True: time.sleep(0.1)
"""


def test_a_gauge_of_a_killed_process_is_not_the_services_for_ever(stack: Stack, tmp_path: Path) -> None:
    folder, told = tmp_path / "metrics", tmp_path / "told"
    folder.mkdir()
    gateway = process(stack, "gateway", MEASURES, str(told))
    start(stack, msgspec.structs.replace(gateway, env={**gateway.env, "PROMETHEUS_MULTIPROC_DIR": str(folder)}))
    until(told.exists)
    assert [file.name for file in folder.glob("gauge_live*")] == [f"gauge_livemax_{pids(stack, 'gateway')[0]}.db"]

    def state() -> float | None:
        merged = CollectorRegistry()
        MultiProcessCollector(merged, path=str(folder))  # type: ignore[no-untyped-call]
        return merged.get_sample_value("breaker_state")

    assert state() == 2
    os.kill(pids(stack, "gateway")[0], signal.SIGKILL)
    until(lambda: state() == 0)


def test_a_process_that_ends_at_once_is_started_with_back_off_and_harms_no_other(stack: Stack) -> None:
    start(stack, process(stack, "good", SLEEPER))
    other = pids(stack, "good")
    stack.add(process(stack, "bad", "raise SystemExit(7)"))
    until(lambda: running(stack, "bad").again_in_s > 0.4)
    assert running(stack, "bad").last_exit == 7
    assert pids(stack, "good") == other


def test_processes_share_the_listening_socket_and_one_killed_leaves_no_refused_connection(stack: Stack) -> None:
    start(stack, process(stack, "web", SERVER, "{fd}", count=2))
    state = stack.state
    assert state

    def ask() -> int:
        with urllib.request.urlopen(state.url, timeout=10) as answer:  # noqa: S310
            return int(answer.read())

    assert ask() in pids(stack, "web")
    os.kill(pids(stack, "web")[0], signal.SIGKILL)
    for _ in range(20):
        assert ask()
    until(lambda: len(pids(stack, "web")) == 2)


def test_added_processes_run_and_removed_ones_end(stack: Stack) -> None:
    start(stack)
    stack.add(process(stack, "extra", SLEEPER))
    until(lambda: pids(stack, "extra"))
    stack.add(process(stack, "extra", SLEEPER))  # again: nothing happens
    (pid,) = pids(stack, "extra")
    stack.remove("extra")
    until(lambda: not psutil.pid_exists(pid))
    stack.remove("extra")


def test_a_second_stack_in_one_home_is_refused(stack: Stack) -> None:
    start(stack, process(stack, "a", SLEEPER))
    with pytest.raises(Refused, match="already runs"):
        start(stack)


def test_down_leaves_nothing_and_may_be_said_twice(stack: Stack) -> None:
    start(stack, process(stack, "a", SLEEPER, count=2), process(stack, "b", SLEEPER))
    state, sockets = stack.state, stack.sockets
    assert state
    everyone = [state.arbiter, *(pid for r in state.processes.values() for pid in r.pids)]
    assert stack.stop(15) == []
    assert not any(psutil.pid_exists(pid) for pid in everyone)
    assert not sockets.exists()
    assert stack.stop(5) == []
    assert stack.state is None


def test_a_killed_supervisor_takes_its_processes_with_it(stack: Stack) -> None:
    start(stack, process(stack, "a", SLEEPER))
    state = stack.state
    assert state
    os.kill(state.arbiter, signal.SIGKILL)
    until(lambda: not any(psutil.pid_exists(p) for p in pids_of(state)))
    with pytest.raises(Unreachable):
        stack.add(process(stack, "b", SLEEPER))
    stack.stop(5)


def pids_of(state: object) -> list[int]:
    return [pid for r in state.processes.values() for pid in r.pids]  # type: ignore[attr-defined]


def test_a_taken_port_is_told_with_the_reason(stack: Stack) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unreachable, match="in use"):
            stack.start(lambda: (), "127.0.0.1", taken.getsockname()[1], stack.folder / "stack.log")
