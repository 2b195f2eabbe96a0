"""Real serving processes over bundles made without training."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from contracts import tracking

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "a-token-of-the-tests"
# Budgets of seconds: what a busy machine is late with is not what these tests ask about.
PATIENT = {
    "STREAMREC_DEADLINE_MS": "20000",
    "STREAMREC_PATIENCE_MS": "20000",
    "STREAMREC_FEATURES_BUDGET_MS": "2000",
    "STREAMREC_RETRIEVAL_BUDGET_MS": "8000",
    "STREAMREC_RANKING_BUDGET_MS": "6000",
}
START_S = 90.0


def wait_until(condition, timeout_s=20.0, why="the condition"):
    """What `condition` returns once it is true."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{why} did not come true within {timeout_s} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def alive(pid: int) -> bool:
    """Not gone and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def belonging_to(home):
    """Every process, wherever it hangs in the tree, that was started for this home."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("STREAMREC_HOME") == str(home) and alive(process.pid):
                found[process.pid] = process.cmdline()
    return found


def end_what_is_left(home: Path) -> None:
    """The event consumer outlives its last worker by half a second; a folder that it writes to cannot be removed."""
    for pid in belonging_to(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not belonging_to(home), why=f"the end of what works on {home}")


def answers(url: str, status: int = 200) -> bool:
    with contextlib.suppress(OSError):
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2) as response:  # noqa: S310
                return response.status == status
        except urllib.error.HTTPError as error:
            return error.code == status
    return False


@dataclass
class Served:
    url: str
    process: subprocess.Popen
    home: Path
    document: dict = field(default_factory=dict)
    client: httpx.Client | None = None

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30)

    def recommend(self, **body) -> dict:
        if self.client is None:  # one for all: making one costs 20 ms of CPU for certificates that nobody needs
            self.client = self.http
        response = self.client.post("/v1/recommendations", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def counted(self, name: str) -> float:
        """One sample of /metrics, by its name and labels without `streamrec_`; 0 where there is none."""
        text = self.http.get("/metrics").text
        return float(next(iter(re.findall(rf"^streamrec_{re.escape(name)} (\S+)$", text, re.MULTILINE)), 0.0))

    def ready(self) -> dict:
        """Over a new connection: any of several workers answers."""
        with urllib.request.urlopen(f"{self.url}/readyz", timeout=10) as response:  # noqa: S310
            return json.load(response)


@contextlib.contextmanager
def running(
    arguments: list[str], home: Path, bundles: Path, url: str | None = None, until: int = 200, **env: str
) -> Iterator[Served]:
    """`python ARGUMENTS` until it is ready: it prints one JSON document (`serve --json`) or answers `until` on `url`.

    Deadlines are far away: a busy machine must not change the answers.
    """
    home.mkdir(parents=True, exist_ok=True)
    log = (home / "serve.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE if url is None else log,
        stderr=log,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("STREAMREC_")},
            "STREAMREC_HOME": str(home),
            "STREAMREC_BUNDLES": str(bundles),
            "STREAMREC_TOKEN": TOKEN,
            **PATIENT,
            "STREAMREC_BREAKER_OPEN_S": "1",  # what is back is asked again soon
            "BENTOML_HOME": str(home / "bentoml"),
            **tracking.OFF,
            **env,
        },
    )
    try:
        if url is None:
            line = process.stdout.readline()  # empty at the end of the process
            assert line, (home / "serve.log").read_text()
            document = json.loads(line)
            yield Served(document["url"], process, home, document)
        else:
            wait_until(lambda: answers(url, until) or process.poll() is not None, START_S, f"{url} ready")
            assert process.poll() is None, (home / "serve.log").read_text()
            yield Served(url, process, home)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
        log.close()
