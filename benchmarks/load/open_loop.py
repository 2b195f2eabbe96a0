"""Load at a fixed rate: `python -m benchmarks.load.open_loop URL --rate 200 --seconds 5`, JSON on standard output.

Requests leave at planned moments, whether earlier ones have been answered or not, and a request's latency counts from
its planned moment. So a server that stops for a second is charged for all that should have been asked in it (no
coordinated omission: Tene, "How NOT to measure latency", 2013), and so is a generator that is late, which says so
itself: `lateness_ms`. Runs in a process of its own, on a core of its own, which it keeps busy.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from benchmarks.load.bodies import request
from benchmarks.load.connections import Answer, Connections
from benchmarks.load.pinned import output

Arrivals = Literal["constant", "poisson"]
SPIN_S = 1.5e-3  # epoll sleeps whole milliseconds: nearer than this it is asked without sleeping


@dataclass(slots=True)
class Load:
    """What came of one run. latencies_s, lateness_s: of the requests answered with 200, in order of their answers."""

    planned: int
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    rungs: Counter[str] = field(default_factory=Counter)
    short: int = 0  # answered with 200 and too few items
    never_sent: int = 0
    latencies_s: list[float] = field(default_factory=list)
    lateness_s: list[float] = field(default_factory=list)

    @property
    def ok(self) -> int:
        return self.statuses[200] - self.short

    def count(self, answer: Answer, items: int) -> None:
        self.statuses[answer.status] += 1
        if answer.status != 200:
            return
        if answer.items < items:
            self.short += 1
        self.rungs[answer.rung or "none"] += 1
        self.latencies_s.append(answer.done - answer.due)
        self.lateness_s.append(answer.sent - answer.due)

    def document(self) -> dict[str, Any]:
        return {
            "planned": self.planned,
            "seconds": round(self.seconds, 3),
            "ok": self.ok,
            "share_ok": round(self.ok / max(self.planned, 1), 5),
            "errors": self.planned - self.ok,
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "short": self.short,
            "never_sent": self.never_sent,
            "rungs": dict(self.rungs),
            "latency_ms": percentiles(np.asarray(self.latencies_s) * 1e3),
            "lateness_ms": percentiles(np.asarray(self.lateness_s) * 1e3),
        }


def percentiles(values: NDArray[np.float64]) -> dict[str, float | None]:
    """None where there is nothing to say it from."""
    asked = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
    if not len(values):
        return dict.fromkeys(asked)
    return {name: round(float(np.percentile(values, p)), 4) for name, p in asked.items()}


def moments(rate: float, seconds: float, arrivals: Arrivals, seed: int) -> NDArray[np.float64]:
    """Planned seconds from the start, ascending, all below `seconds`."""
    if arrivals == "constant":
        return np.arange(int(rate * seconds)) / rate
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / rate, int(rate * seconds + 10 * np.sqrt(rate * seconds) + 10))
    at = np.cumsum(gaps)
    return at[at < seconds]


def drive(
    connections: Connections,
    planned: NDArray[np.float64],
    make: Callable[[int], bytes],
    *,
    items: int = 1,
    drain_s: float = 2.0,
) -> Load:
    """Send request `make(i)` at `planned[i]`; wait for what is under way at the end, at most `drain_s`.

    items: how many an answer must hold at least. A request for which there is no connection waits its turn here, and
    its time runs.
    """
    load = Load(len(planned))
    dues: list[float] = planned.tolist()
    waiting: deque[int] = deque()
    requests = [make(i) for i in range(len(dues))]
    upcoming, n = 0, len(dues)
    begin = time.perf_counter() + 0.005
    end = begin + (dues[-1] if dues else 0.0) + drain_s
    while upcoming < n or waiting or connections.busy:
        now = time.perf_counter()
        if now > end:
            break
        while upcoming < n and begin + dues[upcoming] <= now:
            waiting.append(upcoming)
            upcoming += 1
        while waiting and connections.send(requests[waiting[0]], begin + dues[waiting[0]]):
            waiting.popleft()
        until = begin + dues[upcoming] - time.perf_counter() if upcoming < n else 0.005
        for answer in connections.poll(until - SPIN_S if until > SPIN_S else 0.0):
            load.count(answer, items)
    load.seconds = time.perf_counter() - begin
    load.never_sent = len(waiting) + n - upcoming
    return load


def open_loop(
    url: str,
    *,
    rate: float,
    seconds: float,
    users: int,
    arrivals: Arrivals = "poisson",
    items: int = 20,
    seed: int = 1,
    timeout_s: float = 5.0,
    core: int | None = None,
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """One run: its document, and the latencies in ms. core: that of the generator."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        command = [sys.executable, "-m", "benchmarks.load.open_loop", url, "--rate", str(rate), "--seed", str(seed)]
        command += ["--seconds", str(seconds), "--users", str(users), "--arrivals", arrivals, "--items", str(items)]
        document = json.loads(output([*command, "--timeout-s", str(timeout_s), "--latencies", file.name], core))
        return document, np.load(file.name) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load.open_loop", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--arrivals", choices=["constant", "poisson"], default="poisson")
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=20, help="that an answer must hold")
    parser.add_argument("--connections", type=int, default=1024, help="at most so many at once")
    parser.add_argument("--timeout-s", type=float, default=5.0, help="of one request")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--latencies", type=Path, help="write them to this .npy file, in seconds")
    arguments = parser.parse_args()
    where = urlsplit(arguments.url)
    connections = Connections(
        where.hostname or "127.0.0.1", where.port or 80, limit=arguments.connections, timeout_s=arguments.timeout_s
    )
    planned = moments(arguments.rate, arguments.seconds, arguments.arrivals, arguments.seed)
    gc.disable()  # its pauses would be the server's
    load = drive(
        connections,
        planned,
        lambda i: request(i + 1_000_003 * arguments.seed, arguments.users),
        items=arguments.items,
        drain_s=arguments.timeout_s,
    )
    connections.close()
    if arguments.latencies:
        np.save(arguments.latencies, np.asarray(load.latencies_s))
    json.dump({"rate": arguments.rate, "arrivals": arguments.arrivals, **load.document()}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
