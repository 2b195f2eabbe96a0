"""What the gateway costs: `python -m benchmarks.gateway [--pairs N] [--seconds S] [--shadow]`, JSON on standard output.

Each pair is one run with and one without, back to back and in turn first, as two runs of one thing differ by more than
the gateway costs. Load by `load/closed_loop.py`. Parts:

bento    the same Bento (a reference world) called directly and through one gateway process: ratio of throughput,
         difference of the median latency, at 1 and at `--clients` connections
stub     the same with a stub in place of the Bento, which answers at once: CPU µs that the gateway takes a request
shadow   with `--shadow`: champion alone, against champion with every request mirrored to a stub that answers, hangs,
         crashes or takes ten times as long: ratio of p99, CPU µs that mirroring adds to a request
"""

import argparse
import contextlib
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.load.closed_loop import closed_loop
from benchmarks.paired import ratio, spread
from benchmarks.processes import wait_until
from benchmarks.reference_world import write_world
from contracts import tracking
from contracts.routing import PUBLIC_KEY, ROUTING, ReleaseRoute, RoutingTable, Target, Upstream
from contracts.signing import Signer

ROOT = Path(__file__).resolve().parents[1]
FRONT_KEY = "of-the-benchmark"
WAIT_S = 60.0
USERS = 5_000


class Home:
    """A home with a signed table, and the processes round it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        control = folder / "control"
        control.mkdir()
        self._file = control / ROUTING
        self._signer = Signer.open(control / "keys" / "routing.key", control / PUBLIC_KEY)
        self._versions = itertools.count(1)

    def route(self, champion: str, urls: dict[str, str], shadow: str | None = None) -> str:
        """Write a table; its name, as a gateway that has applied it says it."""
        release = shadow and ReleaseRoute(id="bench", step="shadow", candidate=Target(bento=shadow), shadow=100)
        table = RoutingTable(
            epoch=1,
            version=next(self._versions),
            written_at="",
            champion=Target(bento=champion),
            bentos={tag: Upstream(urls=(url,)) for tag, url in urls.items()},
            release=release or None,
        )
        part = self._file.with_suffix(".part")
        part.write_text(self._signer.seal(table.model_dump_json()))
        part.replace(self._file)
        return f"{table.epoch}.{table.version}"

    @contextlib.contextmanager
    def process(self, *arguments: str, name: str, listen: bool = True) -> Iterator[tuple[str, psutil.Process]]:
        """`python ARGUMENTS --fd N` until it is ready; ended at the end."""
        with socket.socket() as listener, (self.folder / f"{name}.log").open("wb") as log:
            listener.bind(("127.0.0.1", 0))
            listener.listen(2048)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            where = ["--fd", str(listener.fileno())] if listen else []
            popen = subprocess.Popen(
                [sys.executable, *arguments, *where],
                cwd=ROOT,
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=log,
                env={
                    **{k: v for k, v in os.environ.items() if not k.startswith("STREAMREC_")},
                    "STREAMREC_HOME": str(self.folder),
                    "STREAMREC_FRONT_KEY": FRONT_KEY,
                    "STREAMREC_DEADLINE_MS": "1000",
                    "BENTOML_HOME": str(self.folder / "bentoml"),
                    **tracking.OFF,
                    "OTEL_SDK_DISABLED": "true",
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                },
            )
            try:
                if listen:
                    wait_until(lambda: _status(f"{url}/readyz") == 200, f"{name} is not ready: {log.name}", WAIT_S)
                yield url, psutil.Process(popen.pid)
            finally:
                popen.terminate()
                try:
                    popen.wait(20)
                except subprocess.TimeoutExpired:
                    popen.kill()
                    popen.wait()

    @contextlib.contextmanager
    def stub(self, name: str, **told: Any) -> Iterator[str]:
        state = self.folder / f"{name}.json"
        state.write_text(json.dumps({"name": name, **told}))
        path = self.folder / f"{name}.sock"
        with self.process("-m", "tests.gateway_stubs", f"unix:{path}", str(state), name=name, listen=False):
            wait_until(path.exists, f"{name} does not listen", WAIT_S)
            yield f"unix:{path}"

    def load(self, url: str, clients: int, seconds: int, process: psutil.Process) -> dict[str, float]:
        """One run of the closed loop. cpu_us: of `process`, a request."""
        before = _cpu_s(process)
        run = closed_loop(url, clients=clients, seconds=seconds, users=USERS)
        used = _cpu_s(process) - before
        figures = {name: run[name] for name in ("rps", "p50_ms", "p99_ms", "failed")}
        return {**figures, "cpu_us": used * 1e6 / max(run["requests"], 1)}


def direct_or_through(
    home: Home,
    direct: str,
    process: psutil.Process,
    gateway: str,
    own: psutil.Process,
    clients: int,
    pairs: int,
    seconds: int,
) -> dict[str, Any]:
    """Pairs of the same load, directly and through the gateway."""
    runs: dict[str, list[dict[str, float]]] = {"direct": [], "gateway": []}
    for n in range(pairs):
        order = [("direct", direct, process), ("gateway", gateway, own)]
        for name, url, measured in order if n % 2 == 0 else order[::-1]:
            runs[name].append(home.load(url, clients, seconds, measured))
    added = [g["p50_ms"] - d["p50_ms"] for d, g in zip(runs["direct"], runs["gateway"], strict=True)]
    return {
        "clients": clients,
        "pairs": pairs,
        "direct": _medians(runs["direct"]),
        "gateway": _medians(runs["gateway"]),
        "throughput_ratio": ratio(_each(runs["gateway"], "rps"), _each(runs["direct"], "rps")),
        "p99_ratio": ratio(_each(runs["gateway"], "p99_ms"), _each(runs["direct"], "p99_ms")),
        "p50_added_ms": spread(added),
    }


def shadowed(home: Home, mode: dict[str, Any], pairs: int, seconds: int, clients: int) -> dict[str, Any]:
    """Pairs of the same load through the gateway, alone and with every request mirrored."""
    runs: dict[str, list[dict[str, float]]] = {"alone": [], "mirrored": []}
    with (
        home.stub("champion", mode="slow", ms=5) as champion,
        home.stub("shadow", **mode) as shadow,
    ):
        urls = {"champion": champion, "shadow": shadow if mode.get("mode") != "crash" else f"{shadow}-gone"}
        home.route("champion", urls)
        with home.process(*GATEWAY, name="gateway") as (gateway, own):
            for n in range(pairs):
                order = [("alone", None), ("mirrored", "shadow")]
                for name, to in order if n % 2 == 0 else order[::-1]:
                    written = home.route("champion", urls, to)
                    wait_until(lambda written=written: _table(gateway) == written, "the table is not applied", WAIT_S)
                    runs[name].append(home.load(gateway, clients, seconds, own))
    added = [m["cpu_us"] - a["cpu_us"] for a, m in zip(runs["alone"], runs["mirrored"], strict=True)]
    return {
        "pairs": pairs,
        "alone": _medians(runs["alone"]),
        "mirrored": _medians(runs["mirrored"]),
        "p99_ratio": ratio(_each(runs["mirrored"], "p99_ms"), _each(runs["alone"], "p99_ms")),
        "cpu_us_added": spread(added),
    }


GATEWAY = ("-m", "bentos.recommender.worker", "--entry", "bentos.gateway.service:Gateway")
SHADOWS: dict[str, dict[str, Any]] = {
    "answers": {"mode": "slow", "ms": 5},
    "ten_times_slower": {"mode": "slow", "ms": 50},
    "hangs": {"mode": "hang"},
    "crashed": {"mode": "crash"},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each run")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--items", type=int, default=20_000, help="of the reference world")
    parser.add_argument("--shadow", action="store_true", help="measure what a shadow does to p99, instead")
    arguments = parser.parse_args()
    plan = (arguments.pairs, arguments.seconds, arguments.clients, arguments.items)
    json.dump(run(*plan, shadow=arguments.shadow), sys.stdout, indent=2)
    print()


def run(pairs: int, seconds: int, clients: int, items: int, *, shadow: bool = False) -> dict[str, Any]:
    """The document. items: of the reference world."""
    document: dict[str, Any] = {"cores": os.cpu_count(), "seconds": seconds}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        home = Home(Path(folder))
        if not shadow:
            return document | _cost(home, pairs, seconds, clients, items)
        found = {name: shadowed(home, mode, pairs, seconds, clients) for name, mode in SHADOWS.items()}
        return document | {"shadow": found}


def _cost(home: Home, pairs: int, seconds: int, clients: int, items: int) -> dict[str, Any]:
    write_world(home.folder / "world", users=USERS, items=items)
    bundles = ("--bundles", str(home.folder / "world"))
    found: dict[str, Any] = {}
    with home.process("-m", "bentos.recommender.worker", *bundles, name="bento") as (bento, process):
        home.route("bento", {"bento": bento})
        with home.process(*GATEWAY, name="gateway") as (gateway, own):
            found["bento"] = [
                direct_or_through(home, bento, process, gateway, own, c, pairs, seconds) for c in (1, clients)
            ]
    with home.stub("stub") as url:
        home.route("stub", {"stub": url})
        with home.process(*GATEWAY, name="gateway") as (gateway, own):
            runs = [home.load(gateway, clients, seconds, own) for _ in range(pairs)]
            found["stub"] = {"clients": clients, "gateway": _medians(runs)}
    return found


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(r[name] for r in runs), 3) for name in runs[0]}


def _each(runs: list[dict[str, float]], name: str) -> list[float]:
    return [run[name] for run in runs]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _table(gateway: str) -> str | None:
    """The name of the routing table that it has applied."""
    with urllib.request.urlopen(f"{gateway}/readyz", timeout=2) as answer:  # noqa: S310 — our own address
        name: str | None = json.load(answer)["table"]["name"]
        return name


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 — our own address
            return int(answer.status)
    except (OSError, ValueError):
        return 0


if __name__ == "__main__":
    main()
