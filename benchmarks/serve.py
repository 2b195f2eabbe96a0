"""`streamrec bench serve`: one core of the service under load, beside what a team would have built instead.

All servers run at once, each pinned to the same core, all but the measured one stopped (SIGSTOP), so that nothing is
started between the two halves of a pair. The generator has the other core. In each round every server is measured
once, in turn first. The rounds are gone through twice, as half of a peak is known when the peak is:

peak       closed loop, `clients` connections: throughput, CPU ms a request
alone      closed loop, one connection: latency of a server that has nothing else to do
half       open loop, Poisson arrivals at half of the throughput that the rounds gave this server: latency

Ratios are of full answers: what came from a cheaper rung of the ladder under load does not count as throughput.
"""

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import contestants
from benchmarks.built import bento
from benchmarks.contestants import Place
from benchmarks.load.closed_loop import closed_loop, generator
from benchmarks.load.open_loop import Arrivals, open_loop, percentiles
from benchmarks.paired import in_turn, median, ratio, spread
from benchmarks.processes import Server, answer, read_through
from benchmarks.reference_home import Size, reference
from benchmarks.scrape import rungs, scrape, stages_ms
from benchmarks.where import by_library, by_stack

OURS = "streamrec"
SETTLE_S = 0.3
WAKE, WAKE_STEP = 100, 487  # requests, of users all over the store
LAST_SLATES, HURRIED_MS = 500, 1.0  # users whose last slate is kept, and a deadline that is too short


@dataclass(frozen=True, slots=True)
class Plan:
    """seconds: of each run. extras: also overload, the lowest rungs, starts and a second worker."""

    cache: Path
    peers: tuple[str, ...] = ()
    pairs: int = 10
    seconds: float = 4.0
    clients: int = 4  # enough to keep one core busy; eight may wait longer than the deadline of 150 ms on a slow day
    size: Size = field(default_factory=Size)
    extras: bool = True


@dataclass(slots=True)
class Runs:
    """Of one server, a value a round."""

    rps: list[float] = field(default_factory=list)
    full_rps: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    alone_p50_ms: list[float] = field(default_factory=list)
    alone_p99_ms: list[float] = field(default_factory=list)
    latencies_ms: list[NDArray[np.float64]] = field(default_factory=list)
    lateness_p99_ms: list[float] = field(default_factory=list)
    errors: int = 0
    rungs: Counter[str] = field(default_factory=Counter)
    half_rungs: Counter[str] = field(default_factory=Counter)
    pss_mib: float = 0.0

    @property
    def half_rate(self) -> float:
        """Requests a second: half of the throughput that is published."""
        return max(1.0, median(self.full_rps) / 2)


@dataclass(frozen=True, slots=True)
class Cores:
    """None: no core to pin to."""

    server: int | None
    load: int | None

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """The first for the server, the last for the generator; nothing is pinned where there is but one."""
        mine = sorted(os.sched_getaffinity(0))
        pinned = len(mine) > 1 and shutil.which("taskset") is not None
        return cls(mine[0], mine[-1]) if pinned else cls(None, None)


def run(
    plan: Plan,
    say: Callable[[str], None] = lambda text: None,
    keep: Callable[[dict[str, Any]], None] = lambda document: None,
) -> dict[str, Any]:
    """The whole benchmark: the document of `streamrec bench serve --json`. keep: gets what there is before extras."""
    made = reference(plan.size, plan.cache)
    cores = Cores.of_this_machine()
    with tempfile.TemporaryDirectory(prefix="streamrec-bench-") as folder:
        place = Place(made, Path(folder), cores.server)
        document: dict[str, Any] = compared(plan, place, cores, say)
        if plan.extras:
            keep(document)
            document |= extras(plan, place, cores, document["throughput_rps"], say)
    return document


def compared(plan: Plan, place: Place, cores: Cores, say: Callable[[str], None]) -> dict[str, Any]:
    """Rounds of our service and the peers that are installed."""
    present = [name for name in plan.peers if contestants.installed(name)]
    runs: dict[str, Runs] = {}
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name in (OURS, *present):
            say(f"starting {name}")
            opened = contestants.ours(place) if name == OURS else contestants.peer(name, place)
            servers[name] = stack.enter_context(opened)
            runs[name] = Runs()
            servers[name].freeze()
        for name, server in servers.items():
            say(f"warming {name}")
            with awake(server):
                _peak(plan, server, cores)
                if name == OURS:
                    first = scrape_of(server)
        for what, measure in (("peak", at_peak), ("half of it", at_half)):
            for n in range(plan.pairs):
                for name in in_turn(list(servers), n):
                    say(f"{what}, round {n + 1} of {plan.pairs}: {name}")
                    with awake(servers[name]):
                        measure(plan, servers[name], runs[name], cores, n)
        processes = {}
        for name, server in servers.items():
            with awake(server):
                processes[name] = server.by_process()
                if name == OURS:
                    stages = stages_ms(first, scrape_of(server))
        own = runs[OURS]
        return {
            **summary(own),
            "stages_ms": stages,
            "rungs": dict(own.rungs),
            "half_rungs": dict(own.half_rungs),
            "peers": {
                name: _peer(own, runs[name], servers[name], processes[name])
                if name in runs
                else {"not_installed": f"{contestants.INSTALL} {name}"}
                for name in plan.peers
            },
            "start_s": round(servers[OURS].start_s, 3),
            "processes": processes[OURS],
            "machine": {"cores": os.cpu_count(), "server_core": cores.server, "load_core": cores.load},
            "generators": {"closed_loop": generator(), "open_loop": "own"},
            "workload": {"users": plan.size.users, "items": plan.size.items, "k": 20},
            "plan": {"pairs": plan.pairs, "seconds": plan.seconds, "clients": plan.clients},
            "idle_servers": "stopped with SIGSTOP while another is measured",
        }


def full_rps(peak: dict[str, Any], by_rung: dict[str, int]) -> float:
    """Of a closed loop; a server without rungs gives full answers only."""
    good = max(0.0, peak["rps"] - peak["failed"] / peak["seconds"])
    answered = sum(by_rung.values())
    return float(good * by_rung.get("full", 0) / answered) if answered else float(good)


def at_peak(plan: Plan, server: Server, runs: Runs, cores: Cores, n: int) -> None:
    """Closed loops: of all clients, then of one."""
    before, cpu = scrape_of(server), server.cpu_s()
    peak = _peak(plan, server, cores, 100_003 * (n + 1))
    cpu, after = server.cpu_s() - cpu, scrape_of(server)
    by_rung = rungs(before, after)
    runs.rps.append(max(0.0, peak["rps"] - peak["failed"] / peak["seconds"]))
    runs.full_rps.append(full_rps(peak, by_rung))
    runs.cpu_ms.append(cpu * 1e3 / max(peak["requests"], 1))
    runs.rungs.update(by_rung)

    alone = closed_loop(
        server.url, clients=1, seconds=max(1.0, plan.seconds / 2), users=plan.size.users, core=cores.load
    )
    runs.alone_p50_ms.append(alone["p50_ms"])
    runs.alone_p99_ms.append(alone["p99_ms"])
    runs.errors += int(peak["failed"] + alone["failed"])
    runs.pss_mib = max(runs.pss_mib, server.pss_mib)


def at_half(plan: Plan, server: Server, runs: Runs, cores: Cores, n: int) -> None:
    """Open loop, when the peaks of all rounds are known."""
    before = scrape_of(server)
    half, latencies = open_loop(
        server.url, rate=runs.half_rate, seconds=plan.seconds, users=plan.size.users, seed=n + 1, core=cores.load
    )
    runs.latencies_ms.append(latencies)
    if len(latencies):
        runs.p50_ms.append(half["latency_ms"]["p50"])
        runs.p99_ms.append(half["latency_ms"]["p99"])
        runs.lateness_p99_ms.append(half["lateness_ms"]["p99"])
    runs.half_rungs.update(rungs(before, scrape_of(server)))
    runs.errors += int(half["errors"])
    runs.pss_mib = max(runs.pss_mib, server.pss_mib)


def _peak(plan: Plan, server: Server, cores: Cores, offset: int = 0, clients: int | None = None) -> dict[str, Any]:
    """As much as the server can do for a fixed number of clients."""
    return closed_loop(
        server.url,
        clients=clients or plan.clients,
        seconds=plan.seconds,
        users=plan.size.users,
        offset=offset,
        core=cores.load,
    )


def summary(runs: Runs) -> dict[str, Any]:
    """The figures of one server. Latencies are at half of its peak, pooled over the rounds."""
    pooled = percentiles(np.concatenate(runs.latencies_ms)) if runs.latencies_ms else percentiles(np.empty(0))
    return {
        "throughput_rps": round(median(runs.full_rps), 2),
        "throughput_interval": spread(runs.full_rps),
        "any_rung_rps": round(median(runs.rps), 2),
        "p50_ms": pooled["p50"],
        "p95_ms": pooled["p95"],
        "p99_ms": pooled["p99"],
        "p99_9_ms": pooled["p99.9"],
        "p99_interval": spread(runs.p99_ms) if runs.p99_ms else None,
        "half_rate_rps": round(runs.half_rate, 2),
        "generator_late_p99_ms": round(max(runs.lateness_p99_ms, default=0.0), 3),
        "alone_p50_ms": round(median(runs.alone_p50_ms), 3),
        "alone_p99_ms": round(median(runs.alone_p99_ms), 3),
        "errors": runs.errors,
        "cpu_ms_per_request": round(median(runs.cpu_ms), 3),
        "pss_mib": round(runs.pss_mib, 1),
    }


def _peer(own: Runs, theirs: Runs, server: Server, processes: list[dict[str, Any]]) -> dict[str, Any]:
    throughput = ratio(own.full_rps, theirs.full_rps)
    return {
        **summary(theirs),
        "ratio": throughput["median"],
        "ratio_interval": throughput,
        "p50_ratio": ratio(theirs.p50_ms, own.p50_ms) if len(own.p50_ms) == len(theirs.p50_ms) else None,
        "p99_ratio": ratio(theirs.p99_ms, own.p99_ms) if len(own.p99_ms) == len(theirs.p99_ms) else None,
        "cpu_ratio": ratio(theirs.cpu_ms, own.cpu_ms),
        "start_s": round(server.start_s, 3),
        "processes": processes,
    }


@contextmanager
def awake(server: Server) -> Iterator[Server]:
    """Running for the time of the block, stopped after it.

    First its files are read: some kernels take away pages that nobody read for a minute, and a server that was stopped
    would be measured while it waits for the disk. Then the timers that came due fire, and requests that do not count
    bring its code and tables back into the caches and tell it that its event loop is no longer late.
    """
    for path in server.files():
        with suppress(OSError):
            read_through(path)
    server.thaw()
    time.sleep(SETTLE_S)
    for n in range(WAKE):
        with suppress(OSError):  # urllib's: also an answer that is none
            answer(server.url, f"u{n * WAKE_STEP}")
    try:
        yield server
    finally:
        server.freeze()


def scrape_of(server: Server) -> dict[tuple[str, str], float]:
    """Our counters; of a peer there are none."""
    return scrape(server.url) if server.name == OURS else {}


def extras(plan: Plan, place: Place, cores: Cores, peak_rps: float, say: Callable[[str], None]) -> dict[str, Any]:
    """What is measured of our service alone."""
    found: dict[str, Any] = {}
    with contestants.ours(place) as server:
        _peak(plan, server, cores)
        rates: dict[str, tuple[float, Arrivals]] = {
            "unloaded": (0.1, "poisson"),
            "half_constant": (0.5, "constant"),
            "overload": (3.0, "poisson"),
        }
        for name, (share, arrivals) in rates.items():
            say(f"{name}: {share:g} × peak")
            load, _ = open_loop(
                server.url,
                rate=max(1.0, share * peak_rps),
                seconds=2 * plan.seconds,
                users=plan.size.users,
                arrivals=arrivals,
                core=cores.load,
            )
            found[name] = {**load, "times_peak": share}
        quiet, loud = (found[name]["latency_ms"]["p99"] for name in ("unloaded", "overload"))
        found["overload"]["p99_over_unloaded"] = round(loud / quiet, 3) if quiet and loud else None
    found["starts_s"] = _starts(place, say)
    found["second_worker"] = _second_worker(plan, place, cores, say)
    found["where"] = _where(plan, place, cores, say)
    found["lowest_rungs"] = _lowest(plan, place, cores, say)
    return found


def _starts(place: Place, say: Callable[[str], None]) -> list[float]:
    """From the command to the first answer of a built Bento."""
    say("a Bento of the reference world")
    tag = bento(place.reference, place.reference.home(place.folder / "bento-home"))
    starts = []
    for n in range(3):
        say(f"start {n + 1} of {tag}")
        with contestants.ours(place, name="bento", bento=tag) as server:
            starts.append(round(server.start_s, 3))
    return starts


def _where(plan: Plan, place: Place, cores: Cores, say: Callable[[str], None]) -> dict[str, Any]:
    """Profiles of the worker under the closed loop; runs of their own, as a profiler costs."""
    found: dict[str, Any] = {}
    with contestants.ours(place, name="profiled") as server:
        worker = server.document["processes"]["worker 1"]
        _peak(plan, server, cores)
        for name, look in (("libraries", by_library), ("stacks", by_stack)):
            say(f"where the time goes: {name}")
            with ThreadPoolExecutor(1) as beside:
                load = beside.submit(_peak, plan, server, cores)
                found[name] = look(worker, plan.seconds * 0.8)
                load.result()
    return found


def _second_worker(plan: Plan, place: Place, cores: Cores, say: Callable[[str], None]) -> dict[str, Any]:
    """PSS of all processes after the same load, with one worker and with two."""
    found: dict[str, Any] = {}
    for workers, name in ((1, "one"), (2, "two")):
        say(f"memory of {name} worker(s)")
        with contestants.ours(place, name=f"{name}-workers", workers=workers) as server:
            _peak(plan, server, cores, clients=64)
            processes = server.by_process()
        found |= {f"{name}_pss_mib": round(sum(p["pss_mib"] for p in processes), 1), f"{name}_processes": processes}
    found["adds_pss_mib"] = round(found["two_pss_mib"] - found["one_pss_mib"], 1)
    return found


def _lowest(plan: Plan, place: Place, cores: Cores, say: Callable[[str], None]) -> dict[str, Any]:
    """Answers a second from lists that are there already.

    batch: a list a user, from the online store. cached: last slates, made by full requests just before; then each
    request brings a deadline that no computed slate can keep. popularity: nobody has a list.
    """
    found: dict[str, Any] = {}
    few = min(LAST_SLATES, plan.size.users)
    kinds: dict[str, tuple[dict[str, str], int, float | None]] = {
        "batch": ({"aim": "lists"}, plan.size.users, None),
        "cached": ({"online_store": "memory"}, few, HURRIED_MS),
        "popularity": ({"aim": "lists", "online_store": "memory"}, plan.size.users, None),
    }
    for name, (settings, users, deadline_ms) in kinds.items():
        say(f"answers of the rung {name}")
        with contestants.ours(place, name=f"rung-{name}", **settings) as server:
            if deadline_ms is not None:
                for n in range(2 * few):
                    answer(server.url, f"u{n % few}")
            runs = []
            for _ in range(3):
                before = scrape(server.url)
                one = closed_loop(
                    server.url,
                    clients=plan.clients,
                    seconds=plan.seconds,
                    users=users,
                    deadline_ms=deadline_ms,
                    core=cores.load,
                )
                runs.append({**one, "rungs": rungs(before, scrape(server.url))})
        found[name] = {
            "throughput_rps": round(median([run["rps"] for run in runs]), 1),
            "p99_ms": round(median([run["p99_ms"] for run in runs]), 3),
            "failed": sum(run["failed"] for run in runs),
            "rungs": runs[-1]["rungs"],
        }
    return found
