"""What an answer pays for its context record, and what serving does.

    python -m benchmarks.context_logging --pairs 10 --save benchmarks/results/context_logging.json

in_process   CPU µs a request of one process, writer included: three runtimes of one world, of which one keeps no
             context, one each with rows and candidates on their default samples, one each in full. The same requests
             go to all in turn.
served       two servers on one core, one with `log_contexts` 0 and one with 1; the other is stopped while one is
             measured, as in `bench serve`. Both get the same open loop, at half of what the slower one can do. A pair
             is one run of each; latencies are of all answers from their planned moment.

With --save the sentences of docs/monitoring.md are made anew. `--size tiny` is for a look at whether it runs.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks import contestants
from benchmarks.drift_report import PAGE, RESULT
from benchmarks.load.open_loop import open_loop
from benchmarks.paired import in_turn, ratio, spread
from benchmarks.reference_home import Size, reference
from benchmarks.reference_names import user_id
from benchmarks.reference_ranker import SMALL
from benchmarks.reference_world import write_world
from benchmarks.sections import replaced
from benchmarks.serve import Cores, Plan, Runs, at_peak, awake
from bentos.recommender.assemble import load_models
from bentos.recommender.bundles import pinned
from bentos.recommender.runtime import Runtime
from contracts.http import RecommendationRequest
from contracts.settings import Settings

USERS, ITEMS, BATCH = 500, 20_000, 20
KEPT: Mapping[str, Mapping[str, float]] = {
    "off": {"log_contexts": 0.0},
    "on": {"log_contexts": 1.0},
    "full": {"log_contexts": 1.0, "log_rows": 1.0, "log_candidates": 1.0},
}
SIZES = {
    "reference": Size(),
    "tiny": Size(users=60, items=400, categories=8, creators=20, graph_dim=32, ranker=SMALL),
}
PEAKS = 3  # runs at the peak of each, of which half is the rate for both
SECTION = "context-logging"
RESULTS = RESULT.with_name("context_logging.json")


async def in_process(batches: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="streamrec-contexts-") as name:
        folder = Path(name)
        write_world(folder / "world", users=USERS, items=ITEMS)
        made = {kept: _runtime(folder, kept) for kept in KEPT}
        for runtime in made.values():
            for n in range(5):
                await _batch(runtime, n)
        us: dict[str, list[float]] = {kept: [] for kept in made}
        with threadpool_limits(1):  # as in a serving process; BLAS threads that wait would count too
            for n in range(batches):
                for kept in in_turn(list(made), n):
                    us[kept].append(await _batch(made[kept], n))
        for runtime in made.values():
            runtime.phase = "stopped"
            await runtime.close()
        records = (batches + 5) * BATCH
        found: dict[str, Any] = {"cpu_us_off": spread(us["off"])}
        for kept in ("on", "full"):
            paid = [on - off for off, on in zip(us["off"], us[kept], strict=True)]
            files = (folder / f"home-{kept}" / "log" / "contexts").rglob("*")
            found[kept] = {
                "cpu_us": spread(us[kept]),
                "cpu_us_paid": spread(paid),
                "bytes_a_record": round(sum(f.stat().st_size for f in files if f.is_file()) / records, 1),
            }
    return {**found, "batches": batches, "requests_a_batch": BATCH, "items": ITEMS}


def _runtime(folder: Path, kept: str) -> Runtime:
    pins = pinned(None, folder / "world")
    settings = Settings(
        home=folder / f"home-{kept}", online_store="memory", deadline_ms=10_000, patience_ms=10_000, **KEPT[kept]
    )
    runtime = Runtime(settings, pins, load_models(pins.folders))
    runtime.phase = "serving"
    return runtime


async def _batch(runtime: Runtime, n: int) -> float:
    """CPU microseconds a request."""
    began = time.process_time_ns()
    for i in range(BATCH):
        at = n * BATCH + i
        request = RecommendationRequest(user_id(at % USERS), k=20, context={"country": "DE", "device": "web"})
        runtime.record(await runtime.recommend(request, f"{id(runtime):x}-{at}", time.perf_counter()))
    return (time.process_time_ns() - began) / 1000 / BATCH


def served(plan: Plan, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Ratios are with contexts to without."""
    made, cores = reference(plan.size, plan.cache), Cores.of_this_machine()
    runs: dict[str, list[dict[str, float]]] = {"off": [], "on": []}
    errors = 0
    with tempfile.TemporaryDirectory(prefix="streamrec-contexts-") as folder, ExitStack() as stack:
        place = contestants.Place(made, Path(folder), cores.server)
        servers = {}
        for name in runs:
            say(f"starting with contexts {name}")
            share = str(KEPT[name]["log_contexts"])
            opened = contestants.ours(place, name=f"contexts-{name}", log_contexts=share)
            servers[name] = stack.enter_context(opened)
            servers[name].freeze()
        peaks = {name: Runs() for name in servers}
        for n in range(min(PEAKS, plan.pairs)):
            for name in in_turn(list(servers), n):
                say(f"peak with contexts {name}")
                with awake(servers[name]) as server:
                    at_peak(plan, server, peaks[name], cores, n)
        rate = min(peak.half_rate for peak in peaks.values())
        for n in range(plan.pairs):
            for name in in_turn(list(runs), n):
                say(f"pair {n + 1} of {plan.pairs}: contexts {name}")
                with awake(servers[name]) as server:
                    cpu_s = server.cpu_s()
                    load, _ = open_loop(
                        server.url,
                        rate=rate,
                        seconds=plan.seconds,
                        users=plan.size.users,
                        seed=n + 1,
                        core=cores.load,
                    )
                    cpu_s = server.cpu_s() - cpu_s
                errors += load["errors"]
                latency = load["latency_ms"]
                runs[name].append(
                    {
                        "p50_ms": latency["p50"],
                        "p99_ms": latency["p99"],
                        "cpu_us": cpu_s * 1e6 / max(load["ok"], 1),
                        "full": load["rungs"].get("full", 0) / max(load["planned"], 1),
                    }
                )
    each = {name: {figure: [run[figure] for run in some] for figure in some[0]} for name, some in runs.items()}
    paid = [on - off for off, on in zip(each["off"]["cpu_us"], each["on"]["cpu_us"], strict=True)]
    spreads = {name: {figure: spread(values) for figure, values in found.items()} for name, found in each.items()}
    return {
        **spreads,
        "p50_ratio": ratio(each["on"]["p50_ms"], each["off"]["p50_ms"]),
        "p99_ratio": ratio(each["on"]["p99_ms"], each["off"]["p99_ms"]),
        "cpu_us_paid": spread(paid),
        "rate_rps": round(rate, 1),
        "errors": errors,
        "plan": {"pairs": plan.pairs, "seconds": plan.seconds, "users": plan.size.users, "items": plan.size.items},
        "machine": {"server_core": cores.server, "load_core": cores.load},
    }


def sentences(found: Mapping[str, Any]) -> str:
    """For docs/monitoring.md."""
    inside, outside = found["in_process"], found["served"]
    plan = outside["plan"]
    p99 = {name: outside[name]["p99_ms"]["median"] for name in ("on", "off")}
    return (
        f"\nOf {inside['batches']} rounds in one process, an answer pays {_of(inside['on']['cpu_us_paid'], 0)} µs of "
        f"CPU for its record and {_of(inside['full']['cpu_us_paid'], 0)} µs for one in full. Of {plan['pairs']} pairs "
        f"of servers on one core under the same {outside['rate_rps']:g} requests a second ({plan['items']:,} items), "
        f"p99 with contexts was {_of(outside['p99_ratio'], 3)} times that without ({p99['on']:.1f} ms against "
        f"{p99['off']:.1f}), and CPU {_of(outside['cpu_us_paid'], 0)} µs a request more.\n"
    )


def _of(figure: Mapping[str, float], digits: int) -> str:
    """Median and interval."""
    median, low, high = (f"{figure[name]:.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.context_logging", description=__doc__)
    parser.add_argument("--pairs", type=int, default=10, help="of runs of the two servers")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--batches", type=int, default=600, help="of 20 requests, in one process")
    parser.add_argument("--size", choices=sorted(SIZES), default="reference", help="of the servers' world")
    parser.add_argument("--cache", type=Path, default=Path(".streamrec/bench"), help="of the reference world")
    parser.add_argument("--save", type=Path, help="write the JSON document here too, and the page's sentences")
    given = parser.parse_args()
    inside = asyncio.run(in_process(given.batches))
    plan = Plan(given.cache.resolve(), (), given.pairs, given.seconds, size=SIZES[given.size])
    found = {"in_process": inside, "served": served(plan, lambda text: print(text, flush=True, file=sys.stderr))}
    print(json.dumps(found, indent=1))
    if given.save:
        given.save.parent.mkdir(parents=True, exist_ok=True)
        given.save.write_text(json.dumps(found, indent=1) + "\n")
        PAGE.write_text(replaced(PAGE.read_text(), {SECTION: sentences(found)}))


if __name__ == "__main__":
    main()
