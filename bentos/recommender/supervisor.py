"""Starts the processes of a service, keeps them running, and ends them in order. Used by `streamrec serve`.

colocated     one worker, or several on one listening socket, forked by a process that keeps them running (nursery.py)
distributed   Retrieval, Ranking and Fallback, each on a Unix socket in a private folder, and one or more entries

The sockets are bound here and inherited, so that a restarted process takes over the connections that wait.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from bentos.recommender.metrics_folder import forget_live, shared_folder
from contracts.errors import StreamRecError, Unreachable
from contracts.settings import Settings

RUNNERS = ("Retrieval", "Ranking", "Fallback")
NURSERY = "workers"
RESTART_WAIT_S = (0.0, 0.5, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class _Process:
    name: str
    arguments: list[str]
    listener: socket.socket
    popen: "subprocess.Popen[bytes] | None" = None
    deaths: list[float] = field(default_factory=list)
    restart_at: float = 0.0


def listen(host: str, port: int) -> socket.socket:
    """
    Raises:
        Unreachable: the port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Unreachable(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            next_command="streamrec serve --port 0   (any free port)",
        ) from error
    listener.listen(2048)
    return listener


class Supervisor:
    """
    Args:
        what: `["--bento", DIR]` or `["--bundles", DIR]`, for the workers.
        code: working directory of the workers, from which a checkout is imported.
        run: folder for what the workers share.
    """

    def __init__(
        self,
        what: list[str],
        listener: socket.socket,
        *,
        topology: str,
        workers: int,
        run: Path,
        code: Path,
        env: Mapping[str, str] | None = None,
        drain_s: float = 1.0,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="streamrec-"))  # 0700; a Unix path may have 107 bytes
        self._code = code
        # One compute thread a process: with two, BLAS and OpenMP wait for each other (a search 3 ms instead of 0.2).
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._env = {**threads, **os.environ, **(env or {}), "STREAMREC_TOPOLOGY": topology}
        self._shared = shared_folder(run) if workers > 1 else None
        if self._shared:
            self._env["PROMETHEUS_MULTIPROC_DIR"] = str(self._shared)
        else:
            self._env.pop("PROMETHEUS_MULTIPROC_DIR", None)
        common = [*what, "--parent", str(os.getpid()), "--drain-s", str(drain_s)]
        runners: dict[str, str] = {}
        self._processes: list[_Process] = []
        if topology == "distributed":
            for name in RUNNERS:
                path = self._folder / f"{name}.sock"
                unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                unix.bind(str(path))
                unix.listen(2048)
                runners[name] = path.as_uri()
                self._processes.append(_Process(name, [*common, "--service", name], unix))
        mapping = ["--runners", json.dumps(runners)] if runners else []
        several = ["--workers", str(workers)] if workers > 1 else []
        self._processes.append(_Process(NURSERY if several else "worker 1", [*common, *mapping, *several], listener))
        self.url = _url(listener)
        self._stopping = False

    def start(self) -> None:
        for process in self._processes:
            self._spawn(process)

    def wait_ready(self, timeout_s: float = 120.0) -> dict[str, Any]:
        """The readiness document of the first worker that can serve.

        Raises:
            StreamRecError: a worker ended before it was ready, or the time is up.
        """
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            for process in self._processes:
                if process.popen is not None and process.popen.poll() is not None:
                    raise StreamRecError(
                        f"{process.name} ended with exit code {process.popen.returncode} before it was ready; "
                        "its log is above"
                    )
            with contextlib.suppress(OSError, ValueError):
                ready = _readyz(self.url)
                if ready["status"] != "unavailable":
                    return ready
                if ready.get("phase") == "serving":
                    raise StreamRecError(f"it started, but can serve nothing: {_unhealthy(ready)}")
            time.sleep(0.05)
        raise StreamRecError(f"{self.url} was not ready within {timeout_s:.0f} s")

    def watch(self) -> None:
        """Restart what dies, until `stop`."""
        while not self._stopping:
            self.watch_once()
            time.sleep(0.1)

    def watch_once(self) -> None:
        now = time.monotonic()
        for process in self._processes:
            if process.popen is not None and process.popen.poll() is not None:
                process.deaths = [*(t for t in process.deaths if now - t < 60), now]
                wait = RESTART_WAIT_S[min(len(process.deaths), len(RESTART_WAIT_S)) - 1]
                print(
                    f"{process.name} ended with exit code {process.popen.returncode}; again in {wait} s",
                    file=sys.stderr,
                )
                process.popen = None
                process.restart_at = now + wait
                if process.name == NURSERY and self._shared:
                    forget_live(self._shared)
            if process.popen is None and not self._stopping and now >= process.restart_at:
                self._spawn(process)

    def stop(self, timeout_s: float = 20.0) -> None:
        """Entries first: they still need their runners for what is under way."""
        self._stopping = True
        entries = [p for p in self._processes if p.name not in RUNNERS]
        runners = [p for p in self._processes if p.name in RUNNERS]
        until = time.monotonic() + timeout_s
        for group in (entries, runners):
            alive = [p.popen for p in group if p.popen is not None]
            for popen in alive:
                popen.send_signal(signal.SIGTERM)
            for popen in alive:
                try:
                    popen.wait(max(until - time.monotonic(), 0.1))
                except subprocess.TimeoutExpired:
                    popen.kill()
                    popen.wait()
        for process in self._processes:
            process.listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._shared:
            shutil.rmtree(self._shared, ignore_errors=True)

    def pids(self) -> dict[str, int]:
        """By name, those that serve."""
        found = {p.name: p.popen.pid for p in self._processes if p.popen is not None}
        if NURSERY in found:
            children = _children(found.pop(NURSERY))
            found |= {f"worker {n}": pid for n, pid in enumerate(children, start=1)}
        return found

    def _spawn(self, process: _Process) -> None:
        fd = process.listener.fileno()
        process.popen = subprocess.Popen(
            [sys.executable, "-m", "bentos.recommender.worker", *process.arguments, "--fd", str(fd)],
            pass_fds=[fd],
            cwd=self._code,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),  # standard output belongs to `--json`
            process_group=0,  # Ctrl-C reaches this process alone, which then ends the others in order
        )


@contextlib.contextmanager
def until_told(supervisor: Supervisor, drain_s: float) -> Iterator[None]:
    """The block runs until SIGINT, SIGTERM or SIGHUP; then, or when it fails, all processes are ended in order."""
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in ends:
        signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr)
    finally:
        for number in ends:
            signal.signal(number, signal.SIG_IGN)  # the end is under way already
        supervisor.stop(drain_s + 20)


def paths_from_here(settings: Settings) -> dict[str, str]:
    """For the workers, which run in another folder: what names a path, made absolute."""
    found = {
        "STREAMREC_HOME": str(settings.home.resolve()),
        "OTEL_SDK_DISABLED": "true",  # BentoML's own instruments cost more than a recommendation
        "STREAMREC_CONFIG": str(Path(os.environ.get("STREAMREC_CONFIG", "streamrec.toml")).resolve()),
    }
    for name in ("bundles", "rules"):
        if path := getattr(settings, name):
            found[f"STREAMREC_{name.upper()}"] = str(path.resolve())
    return found


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _children(pid: int) -> list[int]:
    """In the order of their start; none where the system does not say."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _readyz(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as response:  # noqa: S310
            return dict(json.load(response))
    except urllib.error.HTTPError as error:  # 503 has the same document, or a problem while it is being loaded
        return {**json.load(error), "status": "unavailable"}


def _unhealthy(ready: dict[str, Any]) -> str:
    return "; ".join(f"{n}: {c['detail']}" for n, c in ready["components"].items() if c["state"] != "healthy")


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
