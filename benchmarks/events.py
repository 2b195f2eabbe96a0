"""What an event costs: `python -m benchmarks.events [--rounds N] [--seconds S]`, JSON on standard output.

Both event logs side by side, in turn within each round: events.db, and a Redis of its own with `appendfsync always`
that holds the online features too. The files lie under `--folder`, whose disk is what is measured.

http    `streamrec serve` with one worker: bodies of one event by 1, 16 and 64 clients, each sending again when it has
        its 202 (closed loop), and bodies of 1,000 by one. Events a second; p50 and p99 of the 202 in ms; CPU µs an
        event of all processes of the service, without Redis'
append  the logs alone, in one process: a group of 1, 64 and 1,000 events in one call. `redis everysec` and `redis no
        file` are what durability is bought with; the service refuses both
"""

import argparse
import contextlib
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import redis

from benchmarks.load.connections import Connections
from benchmarks.paired import in_turn, spread
from benchmarks.processes import Server, server, wait_until
from benchmarks.reference_world import write_world
from bentos.telemetry.event_store import EventStore
from bentos.telemetry.event_stream import RedisEventLog
from contracts import tracking
from contracts.events import Event

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ((1, 1), (16, 1), (64, 1), (1, 1_000))  # clients, events a body
GROUPS = (1, 64, 1_000)
USERS, ITEMS = 5_000, 20_000
_number = itertools.count()


@contextlib.contextmanager
def redis_server(folder: Path, *arguments: str) -> Iterator[str]:
    """Its address: a Unix socket in `folder`, so that no port is taken."""
    folder.mkdir()
    socket = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    url = f"unix://{socket}"

    def answers() -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url) as client:
            return bool(client.ping())
        return False

    try:
        wait_until(answers, "redis-server does not answer", 20)
        yield url
    finally:
        process.terminate()
        process.wait()


DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@contextlib.contextmanager
def serving(folder: Path, world: Path, url: str) -> Iterator[Server]:
    folder.mkdir()
    env = {
        "STREAMREC_HOME": str(folder),
        "STREAMREC_BUNDLES": str(world),
        "STREAMREC_EVENT_LOG": url,
        "STREAMREC_ONLINE_STORE": url,
        "BENTOML_HOME": str(folder / "bentoml"),
        **tracking.OFF,
    }
    command = [sys.executable, "-m", "cli", "serve", "--port", "0", "--json"]
    with server("serve", command, core=None, log=folder / "serve.log", env=env, cwd=ROOT) as served:
        yield served


def body(size: int) -> bytes:
    """A request with `size` events that nobody has sent before."""
    now = datetime.now(UTC).isoformat()
    events = [
        {
            "event_id": f"{n}-of-the-benchmark",
            "user_id": f"u{n * 7919 % USERS}",
            "item_id": f"i{n * 104_729 % ITEMS}",
            "event": "click",
            "timestamp": now,
            "context": {"device": "ios"},
        }
        for n in itertools.islice(_number, size)
    ]
    content = json.dumps(events).encode()
    lines = ("POST /v1/events HTTP/1.1", "host: 127.0.0.1", "content-type: application/json")
    return "\r\n".join((*lines, f"content-length: {len(content)}", "", "")).encode() + content


def load(served: Server, clients: int, size: int, seconds: float) -> dict[str, float]:
    """One run of the closed loop."""
    where = urlsplit(served.url)
    connections = Connections(where.hostname or "", where.port or 80, limit=clients, timeout_s=10.0)
    waits: list[float] = []
    failed = 0
    cpu = _cpu_s(served)
    began = now = time.perf_counter()
    while now - began < seconds:
        while connections.busy < clients:
            connections.send(body(size), time.perf_counter())
        for answer in connections.poll(0.005):
            if answer.status == 202:
                waits.append(answer.done - answer.sent)
            else:
                failed += 1
        now = time.perf_counter()
    connections.close()
    used = _cpu_s(served) - cpu
    events = len(waits) * size
    milliseconds = np.asarray(waits or [0.0]) * 1e3
    return {
        "events_per_s": events / (now - began),
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
        "cpu_us_per_event": used * 1e6 / max(events, 1),
        "failed": failed,
    }


def _cpu_s(served: Server) -> float:
    """Of the workers and of the consumer, which is no child of theirs."""
    import psutil

    consumers = [p for p in psutil.process_iter(["cmdline"]) if _is_consumer(p, served.document)]
    times = [p.cpu_times() for p in consumers]
    return served.cpu_s() + sum(t.user + t.system for t in times)


def _is_consumer(process: Any, document: dict[str, Any]) -> bool:
    words = process.info["cmdline"] or []
    return "bentos.telemetry.consumer" in words and any(str(document["home"]) == w for w in words)


def groups(log: Any, size: int, seconds: float) -> dict[str, float]:
    """Calls of `append` one after the other."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        now_us = time.time_ns() // 1000
        events = [
            Event(
                f"{n}-of-the-benchmark", f"u{n % USERS}", f"i{n % ITEMS}", "click", now_us, now_us, context={"d": "i"}
            )
            for n in itertools.islice(_number, size)
        ]
        began = time.perf_counter()
        log.append([events])
        times.append((time.perf_counter() - began) * 1e3)
    return {
        "events_per_s": size * 1e3 / statistics.fmean(times),
        "p50_ms": float(np.percentile(times, 50)),
        "p99_ms": float(np.percentile(times, 99)),
    }


def appends(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        logs: dict[str, Any] = {"sqlite": EventStore(folder)}
        for name, arguments in {
            "redis always": DURABLE,
            "redis everysec": ("--appendonly", "yes", "--appendfsync", "everysec"),
            "redis no file": ("--appendonly", "no"),
        }.items():
            log = RedisEventLog(stack.enter_context(redis_server(folder / name.replace(" ", "-"), *arguments)))
            log.check = lambda: None  # type: ignore[method-assign]
            logs[name] = log
        for log in logs.values():
            stack.callback(log.close)
        return {
            f"{size} events": _each(logs, rounds, lambda log, size=size: groups(log, size, seconds)) for size in GROUPS
        }


def over_http(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    world = folder / "world"
    write_world(world, users=200, items=400)
    with (
        redis_server(folder / "redis-of-the-service", *DURABLE) as url,
        serving(folder / "sqlite", world, "sqlite") as embedded,
        serving(folder / "redis", world, url) as in_redis,
    ):
        services = {"sqlite": embedded, "redis": in_redis}
        for name, served in services.items():
            served.document["home"] = folder / name
            load(served, 4, 10, 1.0)  # the consumer is there
        return {
            f"{clients} clients, {size} events a body": _each(
                services, rounds, lambda served, clients=clients, size=size: load(served, clients, size, seconds)
            )
            for clients, size in SHAPES
        }


def _each(subjects: dict[str, Any], rounds: int, run: Callable[[Any], dict[str, float]]) -> dict[str, Any]:
    """Median and spread of each figure, subject by subject."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in subjects}
    for n in range(rounds):
        for name in in_turn(list(subjects), n):
            found[name].append(run(subjects[name]))
    return {name: {figure: spread([r[figure] for r in runs]) for figure in runs[0]} for name, runs in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.events", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--folder", type=Path, help="where the logs lie [default: a temporary folder]")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="streamrec-events-", dir=arguments.folder))
    try:
        document = {
            "http": over_http(folder, arguments.rounds, arguments.seconds),
            "append": appends(folder, arguments.rounds, arguments.seconds / 4),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    json.dump(document, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
