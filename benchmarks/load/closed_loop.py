"""Load by a fixed number of clients, each asking again when it has its answer: wrk, or without it our own generator.

Closed loop: a slow server is asked less. Good for throughput, wrong for latency under load (`open_loop`).
"""

import argparse
import gc
import json
import re
import shutil
import sys
import tempfile
import time
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.load.bodies import lua, request
from benchmarks.load.connections import Connections
from benchmarks.load.open_loop import Load
from benchmarks.load.pinned import output
from contracts.errors import StreamRecError

_UNIT_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def generator() -> str:
    """`wrk` where it is installed."""
    return "wrk" if shutil.which("wrk") else "own"


def closed_loop(
    url: str,
    *,
    clients: int,
    seconds: float,
    users: int,
    offset: int = 0,
    deadline_ms: float | None = None,
    core: int | None = None,
) -> dict[str, Any]:
    """One run: `rps`, `requests`, `p50_ms`, `p99_ms`, `failed`, `seconds`.

    deadline_ms: what each request says that it has; core: that of the generator.
    """
    if generator() == "own":
        command = [sys.executable, "-m", "benchmarks.load.closed_loop", url, "--clients", str(clients)]
        command += ["--seconds", str(seconds), "--users", str(users), "--offset", str(offset)]
        command += [] if deadline_ms is None else ["--deadline-ms", str(deadline_ms)]
        return dict(json.loads(output(command, core)))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(lua(users, offset, deadline_ms))
        script.flush()
        command = ["wrk", "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "--latency"]
        return parsed(output([*command, "-s", script.name, url], core))


def parsed(text: str) -> dict[str, Any]:
    """What wrk printed. Raises `StreamRecError` when it is not wrk's report."""
    requests = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)\b", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if requests is None or rate is None:
        raise StreamRecError(f"wrk made no report: {text[-500:]}")
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    for counts in re.findall(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text):
        failed += sum(map(int, counts))
    return {
        "requests": int(requests[1]),
        "seconds": float(requests[2]) * ({**_UNIT_MS, "m": 60e3}[requests[3]] / 1e3),
        "rps": float(rate[1]),
        "p50_ms": _percentile(text, "50"),
        "p99_ms": _percentile(text, "99"),
        "failed": failed,
    }


def _percentile(text: str, percent: str) -> float:
    found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)\b", text)
    return float(found[1]) * _UNIT_MS[found[2]] if found else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load.closed_loop", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--deadline-ms", type=float)
    arguments = parser.parse_args()
    where = urlsplit(arguments.url)
    connections = Connections(where.hostname or "", where.port or 80, limit=arguments.clients, timeout_s=10.0)
    load, sent = Load(0), 0
    gc.disable()
    began = now = time.perf_counter()
    while now - began < arguments.seconds:
        while connections.busy < arguments.clients:
            n = arguments.offset + sent
            asked = request(n, arguments.users, deadline_ms=arguments.deadline_ms)
            if not connections.send(asked, time.perf_counter()):
                break
            sent += 1
        for answer in connections.poll(0.005):
            load.count(answer, items=0)
        now = time.perf_counter()
    connections.close()
    latencies = np.asarray(load.latencies_s or [0.0]) * 1e3
    document = {
        "requests": load.ok,
        "seconds": now - began,
        "rps": load.ok / (now - began),
        "p50_ms": float(np.percentile(latencies, 50)),
        "p99_ms": float(np.percentile(latencies, 99)),
        "failed": sum(load.statuses.values()) - load.ok,
    }
    json.dump(document, sys.stdout)
    print()


if __name__ == "__main__":
    main()
