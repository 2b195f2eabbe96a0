"""A server's whole process tree on chosen cores: started, measured, stopped in its tracks and ended."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.load.bodies import CONTEXT, PATH
from contracts.errors import StreamRecError

START_S = 180.0
STOP_S = 20.0


@dataclass(slots=True)
class Server:
    """start_s: from the command to the first answer that is one. document: what `serve --json` printed."""

    name: str
    url: str
    root: psutil.Process
    start_s: float
    document: dict[str, Any] = field(default_factory=dict)
    frozen: bool = False

    def processes(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.root, *self.root.children(recursive=True)]
        return []

    def files(self) -> set[Path]:
        """What its processes have mapped or opened."""
        found = set()
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                found |= {Path(mapped.path) for mapped in process.memory_maps()}
                found |= {Path(opened.path) for opened in process.open_files()}
        return {path for path in found if path.is_file()}

    def cpu_s(self) -> float:
        """CPU seconds of all processes so far, those that have ended and were waited for included."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return float(total)

    def by_process(self) -> list[dict[str, Any]]:
        """PSS counts a page that n processes share as 1/n in each. Peak is of resident memory: PSS has none."""
        rows = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                times = process.cpu_times()
                status = Path(f"/proc/{process.pid}/status").read_text()
                rows.append(
                    {
                        "process": _named(process),
                        "pid": process.pid,
                        "cpu_s": round(times.user + times.system, 3),
                        "pss_mib": round(pss_mib(process.pid), 1),
                        "peak_rss_mib": round(_kib(status, "VmHWM") / 1024, 1),
                    }
                )
        return rows

    @property
    def pss_mib(self) -> float:
        return sum(row["pss_mib"] for row in self.by_process())

    def freeze(self) -> None:
        """An idle server takes no time of the one that is measured (Ray's processes never sleep for long)."""
        self._signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self.frozen = False

    def _signal(self, number: int) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@contextlib.contextmanager
def server(
    name: str,
    command: Sequence[str],
    *,
    core: int | None,
    log: Path,
    env: Mapping[str, str],
    cwd: Path,
    url: str | None = None,
    start_s: float = START_S,
) -> Iterator[Server]:
    """Run `command` on one core until the block ends. Without `url` it prints one JSON document with its `url`.

    Raises:
        StreamRecError: it ended, or it gave no recommendation in time.
    """
    # A benchmark that is killed takes its servers with it.
    tied = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    pinned = [*tied, *(["taskset", "-c", str(core)] if core is not None else [])]
    began = time.perf_counter()
    with log.open("wb") as sink:
        popen = subprocess.Popen(
            [*pinned, *command],
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if url is None else sink,
            stderr=sink,
            start_new_session=True,
        )
        root = psutil.Process(popen.pid)
        try:
            document = {}
            if url is None:
                document = _document(popen, name, log, start_s)
                url = str(document["url"])
            _first_answer(url, popen, name, log, began + start_s)
            yield Server(name, url, root, time.perf_counter() - began, document)
        finally:
            _end(popen, root)


def pss_mib(pid: int) -> float:
    return _kib(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss") / 1024


def read_through(path: Path) -> None:
    """Once, in order, so that its pages are in memory."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def answer(url: str, user_id: str = "u1", timeout_s: float = 10.0) -> dict[str, Any]:
    """One recommendation, as a client would ask for it."""
    content = json.dumps({"user_id": user_id, "k": 20, "context": CONTEXT}).encode()
    asked = urllib.request.Request(url + PATH, content, {"content-type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=timeout_s) as response:  # noqa: S310 - our own address
        return dict(json.load(response))


def _document(popen: "subprocess.Popen[bytes]", name: str, log: Path, start_s: float) -> dict[str, Any]:
    timer = threading.Timer(start_s, popen.kill)  # which ends the wait for its words
    timer.start()
    try:
        assert popen.stdout is not None
        line = popen.stdout.readline()
    finally:
        timer.cancel()
    if not line:
        raise StreamRecError(f"{name} did not start: {_last_words(log)}", next_command=f"less {log}")
    return dict(json.loads(line))


def _first_answer(url: str, popen: "subprocess.Popen[bytes]", name: str, log: Path, until: float) -> None:
    def answered() -> bool:
        if popen.poll() is not None:
            raise StreamRecError(f"{name} ended while it started: {_last_words(log)}", next_command=f"less {log}")
        try:
            return bool(answer(url)["items"])
        except (OSError, urllib.error.URLError, ValueError, KeyError):
            return False

    wait_until(answered, f"{name} gave no recommendation in time: {log}", until - time.perf_counter())


def wait_until(condition: Callable[[], bool], why: str, timeout_s: float, every_s: float = 0.02) -> None:
    """
    Raises:
        StreamRecError: `why`.
    """
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise StreamRecError(why)
        time.sleep(every_s)


def _end(popen: "subprocess.Popen[bytes]", root: psutil.Process) -> None:
    """SIGTERM to the root, which ends its own; what is left of the tree after that is killed."""
    tree = []
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = [root, *root.children(recursive=True)]
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)
    popen.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        popen.wait(STOP_S)
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    popen.wait()
    if popen.stdout is not None:
        popen.stdout.close()


def _named(process: psutil.Process) -> str:
    """The module or the program with its first word."""
    words = process.cmdline()
    if "-m" in words[:-1]:
        at = words.index("-m") + 1
        return " ".join(Path(w).name for w in words[at : at + 2] if not w.startswith("/"))[:60]
    return " ".join(Path(w).name for w in words[:2])[:60]


def _kib(text: str, name: str) -> float:
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return float(line.split()[1])
    return 0.0


def _last_words(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").split())[-400:]
