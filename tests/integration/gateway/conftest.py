"""Real gateway processes on one port, over Bentos that do as they are told."""

import contextlib
import hashlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import pytest

from bentos.telemetry.attempts import read_attempts
from bentos.telemetry.exposures import read_exposures
from contracts import tracking
from contracts.routing import PUBLIC_KEY, ROUTING, Consumer, ReleaseRoute, RoutingTable, Target, Upstream
from contracts.signing import Signer
from tests.serving_processes import TOKEN, end_what_is_left, wait_until

ROOT = Path(__file__).resolve().parents[3]
FRONT_KEY = "a-front-key-of-the-tests"

WORKER = [sys.executable, "-m", "bentos.recommender.worker", "--entry", "bentos.gateway.service:Gateway"]
WORKER = os.environ.get("GW_LAUNCH", "").split() or WORKER


class Stub:
    """One address. `tell(mode=…)` changes what it does from the next request on."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.url = f"unix:{folder / name}.sock"
        self._state = folder / f"{name}.json"
        self.process: subprocess.Popen | None = None
        self.tell()
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.gateway_stubs", self.url, str(self._state)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert self.process.stdout.readline()

    def tell(self, **told) -> None:
        part = self._state.with_suffix(".part")
        part.write_text(json.dumps({"name": self.name.split("-")[0], **told}))
        part.replace(self._state)

    @property
    def seen(self) -> str:
        """A character for each request: `.`, or `s` for a mirrored one."""
        path = self._state.with_suffix(".seen")
        return path.read_text() if path.exists() else ""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class World:
    """A home with a signed table, stubs, and gateway processes that share one listening socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        control = self.home / "control"
        control.mkdir(parents=True)
        self.signer = Signer.open(control / "keys" / "routing.key", control / PUBLIC_KEY)
        self.file = control / ROUTING
        self.version = itertools.count(1)
        self.stubs: dict[str, Stub] = {}
        self.gateways: list[subprocess.Popen] = []
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(2048)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.http = httpx.Client(base_url=self.url, timeout=20)

    def stub(self, name: str) -> Stub:
        self.stubs[name] = Stub(self.folder, name)
        return self.stubs[name]

    def write(self, *, release: ReleaseRoute | None = None, raw: str | None = None, **fields) -> str:
        """A table with `alpha` as champion and every stub as an address of the Bento before its hyphen."""
        urls: dict[str, list[str]] = {}
        for name, stub in self.stubs.items():
            urls.setdefault(name.split("-")[0], []).append(stub.url)
        bentos = fields.pop("bentos", {tag: Upstream(urls=tuple(found)) for tag, found in urls.items()})
        table = RoutingTable(
            epoch=1,
            version=next(self.version),
            written_at="2026-01-01T00:00:00Z",
            champion=Target(bento="alpha"),
            bentos=bentos,
            release=release,
            **fields,
        )
        part = self.file.with_suffix(".part")
        part.write_text(self.signer.seal(table.model_dump_json()) if raw is None else raw)
        part.replace(self.file)
        return table.name

    def start(self, processes: int = 1, deadline_ms: int = 2_000, **env: str) -> None:
        metrics = self.folder / "metrics-gateway"
        metrics.mkdir(exist_ok=True)
        number = self.listener.fileno()
        for _ in range(processes):
            log = (self.folder / "gateway.log").open("ab")
            self.gateways.append(
                subprocess.Popen(
                    [*WORKER, "--fd", str(number), "--drain-s", "0.2"],
                    pass_fds=[number],
                    cwd=ROOT,
                    stdout=log,
                    stderr=log,
                    env={
                        **{k: v for k, v in os.environ.items() if not k.startswith("STREAMREC_")},
                        "STREAMREC_HOME": str(self.home),
                        "STREAMREC_FRONT_KEY": FRONT_KEY,
                        "STREAMREC_TOKEN": TOKEN,
                        "STREAMREC_DEADLINE_MS": str(deadline_ms),
                        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
                        "BENTOML_HOME": str(self.folder / "bentoml"),
                        **tracking.OFF,
                        "OTEL_SDK_DISABLED": "true",
                        **env,
                    },
                )
            )
            log.close()
        pids = {g.pid for g in self.gateways if g.poll() is None}
        wait_until(lambda: self.pids_that_answer() >= pids or self.dead(), 60, "all gateway processes ready")
        assert not self.dead(), (self.folder / "gateway.log").read_text()[-3000:]

    def dead(self) -> bool:
        return any(g.poll() is not None for g in self.gateways)

    def ready(self) -> dict:
        """Over a new connection: any process answers."""
        return httpx.get(f"{self.url}/readyz", timeout=5).json()

    def all_ready(self) -> dict[int, dict]:
        """The document of each living process."""
        found: dict[int, dict] = {}
        for _ in range(40):
            with contextlib.suppress(httpx.HTTPError, ValueError):
                document = self.ready()
                if "pid" in document:
                    found[document["pid"]] = document
            if len(found) == sum(g.poll() is None for g in self.gateways):
                break
        return found

    def pids_that_answer(self) -> set[int]:
        with contextlib.suppress(httpx.HTTPError):
            return set(self.all_ready())
        return set()

    def recommend(self, user: str = "u1", *, headers: dict | None = None, **body) -> httpx.Response:
        return self.http.post("/v1/recommendations", json={"user_id": user, "k": 5, **body}, headers=headers)

    def exposures(self) -> list[dict]:
        return read_exposures(self.home).to_pylist()

    def attempts(self) -> list[dict]:
        return read_attempts(self.home).to_pylist()

    def metric(self, name: str) -> float:
        """Sum of the lines that start with `name`."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def close(self) -> None:
        self.http.close()
        for gateway in self.gateways:
            gateway.terminate()
        for gateway in self.gateways:
            try:
                gateway.wait(15)
            except subprocess.TimeoutExpired:
                gateway.kill()
                gateway.wait()
        for stub in self.stubs.values():
            if stub.process.poll() is None:
                stub.kill()
        self.listener.close()
        end_what_is_left(self.home)


@pytest.fixture
def world():
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:  # a Unix path may have 107 bytes
        found = World(Path(folder))
        try:
            yield found
        finally:
            found.close()


class Load:
    """Clients that ask again and again, over connections that are kept; what they got."""

    def __init__(self, url: str, clients: int = 4, retry_reset: bool = False) -> None:
        self.results: list[tuple[float, int, str]] = []  # when, status (0: no answer), variant
        self.retried = 0
        self._url, self._retry = url, retry_reset
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def failed(self) -> list[tuple[float, int, str]]:
        return [r for r in self.results if r[1] != 200]

    def wait(self, more: int) -> None:
        until = len(self.results) + more
        wait_until(lambda: len(self.results) >= until, 30, f"{more} more answers")

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=10) as client:
            for n in itertools.count():
                if self._stop.is_set():
                    return
                self.results.append(self._once(client, {"user_id": f"u{number}-{n}", "k": 5}))

    def _once(self, client: httpx.Client, body: dict) -> tuple[float, int, str]:
        for last in (not self._retry, True):
            try:
                answer = client.post("/v1/recommendations", json=body)
                return time.monotonic(), answer.status_code, answer.json().get("variant", "")
            except httpx.TransportError:
                if last:
                    return time.monotonic(), 0, ""
                self.retried += 1
        raise AssertionError


@pytest.fixture
def load(world):
    return lambda **more: Load(world.url, **more)


def canary(weight: float = 50, *, id: str = "r1", bento: str = "beta", **more) -> ReleaseRoute:
    return ReleaseRoute(id=id, step="canary", candidate=Target(bento=bento), weight=weight, **more)


def consumer(name: str, key: str, **more) -> Consumer:
    return Consumer(name=name, key_sha256=hashlib.sha256(key.encode()).hexdigest(), **more)
