"""How the figures grow: `streamrec bench serve --growth items|candidates|clients`. Each step beside a peer, in turn.

items        20,000 to 2,000,000: throughput, latency at half of it, memory, start; beside FastAPI
clients      1 to 256 connections of the closed loop: throughput, latency, rungs; beside FastAPI
candidates   100 to 2,000 that are ranked: CPU of one request without HTTP; beside the peers' funnel in this process
"""

import asyncio
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks import contestants
from benchmarks.contestants import PEERS_CODE, Place
from benchmarks.load.bodies import CONTEXT, STRIDE
from benchmarks.load.closed_loop import closed_loop
from benchmarks.paired import in_turn, median, ratio
from benchmarks.reference_home import Reference, reference
from benchmarks.reference_world import user_id
from benchmarks.scrape import rungs
from benchmarks.serve import OURS, Cores, Plan, awake, compared, full_rps, scrape_of
from bentos.recommender.assemble import load_models
from bentos.recommender.compose import QUOTAS, FunnelConfig
from bentos.recommender.funnel import Funnel
from bentos.recommender.rules import default_rules
from bentos.recommender.types import Query
from features.online.sqlite import SqliteStore
from registry.artifacts import KINDS

ITEMS = (20_000, 60_000, 200_000, 600_000, 2_000_000)
CANDIDATES = (100, 200, 500, 1_000, 2_000)
CLIENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GROWTH_USERS = 5_000  # where items grow: a user costs the store as much in any number
PEER = "fastapi"

Say = Callable[[str], None]


def items(plan: Plan, say: Say, sizes: Sequence[int] = ITEMS) -> dict[str, Any]:
    """The catalogue grows; candidates stay at 500."""
    steps = []
    for n in sizes:
        size = replace(plan.size, items=n, users=min(GROWTH_USERS, plan.size.users))
        made, cores = reference(size, plan.cache), Cores.of_this_machine()
        with tempfile.TemporaryDirectory(prefix="streamrec-bench-") as folder:
            step = replace(plan, size=size, peers=(PEER,))
            found = compared(
                step, Place(made, Path(folder), cores.server), cores, lambda text, n=n: say(f"{n:,}: {text}")
            )
        steps.append({"items": n, **{key: found[key] for key in KEPT}, "peer": found["peers"][PEER]})
    return {"growth": "items", "peer": PEER, "steps": steps}


KEPT = ("throughput_rps", "p50_ms", "p99_ms", "alone_p50_ms", "cpu_ms_per_request", "pss_mib", "start_s", "errors")


def clients(plan: Plan, say: Say, counts: Sequence[int] = CLIENTS) -> dict[str, Any]:
    """More connections on one core."""
    made, cores = reference(plan.size, plan.cache), Cores.of_this_machine()
    steps = []
    with tempfile.TemporaryDirectory(prefix="streamrec-bench-") as folder, ExitStack() as stack:
        place = Place(made, Path(folder), cores.server)
        servers = {OURS: stack.enter_context(contestants.ours(place))}
        if contestants.installed(PEER):
            servers[PEER] = stack.enter_context(contestants.peer(PEER, place))
        for server in servers.values():
            closed_loop(server.url, clients=8, seconds=plan.seconds, users=plan.size.users, core=cores.load)
            server.freeze()
        for count in counts:
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
            for n in range(plan.pairs):
                for name in in_turn(list(servers), n):
                    say(f"{count} clients: {name}")
                    with awake(servers[name]) as server:
                        before = scrape_of(server)
                        one = closed_loop(
                            server.url, clients=count, seconds=plan.seconds, users=plan.size.users, core=cores.load
                        )
                        by_rung = rungs(before, scrape_of(server))
                        runs[name].append(
                            {
                                **one,
                                "rps": max(0.0, one["rps"] - one["failed"] / one["seconds"]),
                                "full_rps": full_rps(one, by_rung),
                                "rungs": by_rung,
                            }
                        )
            step: dict[str, Any] = {"clients": count}
            for name, found in runs.items():
                keys = ("rps", "full_rps", "p50_ms", "p99_ms", "failed")
                step[name] = {key: round(median([run[key] for run in found]), 3) for key in keys}
                step[name]["rungs"] = found[-1]["rungs"]
            if PEER in runs:
                step["ratio"] = ratio(*([run["full_rps"] for run in runs[name]] for name in (OURS, PEER)))
            steps.append(step)
    return {"growth": "clients", "peer": PEER, "steps": steps}


def candidates(plan: Plan, say: Say, counts: Sequence[int] = CANDIDATES, requests: int = 40) -> dict[str, Any]:
    """CPU of one request in one thread, read of the store included. Quotas grow with the total."""
    made = reference(plan.size, plan.cache)
    steps = []
    for count in counts:
        quotas = {name: max(1, quota * count // 500) for name, quota in QUOTAS.items()}
        arms = {"ours": _own(made, quotas, count), "peer": _peer(made, quotas, count)}
        for one in arms.values():  # not the first use
            one(user_id(0))
        cpu_ms: dict[str, list[float]] = {name: [] for name in arms}
        for n in range(plan.pairs):
            say(f"{count} candidates, round {n + 1}")
            for name in in_turn(list(arms), n):
                users = [user_id((n * requests + i) * STRIDE % plan.size.users) for i in range(requests)]
                with threadpool_limits(1):  # as in a serving process; BLAS threads that wait would count too
                    began = time.process_time()
                    for user in users:
                        arms[name](user)
                    cpu_ms[name].append((time.process_time() - began) / requests * 1e3)
        steps.append(
            {
                "candidates": count,
                **{f"{name}_cpu_ms": round(median(values), 3) for name, values in cpu_ms.items()},
                "ratio": ratio(cpu_ms["peer"], cpu_ms["ours"]),
            }
        )
    return {"growth": "candidates", "peer": "the peers' funnel, in this process", "steps": steps}


def _own(made: Reference, quotas: dict[str, int], total: int) -> Callable[[str], None]:
    """One request of a user."""
    models = load_models({kind: made.world / kind for kind in KINDS})
    funnel = Funnel(models, default_rules(), config=replace(FunnelConfig(), quotas=quotas, total=total))
    store = SqliteStore(made.stores)
    snapshot = store.read_item_snapshot()
    assert snapshot is not None
    funnel.set_items(snapshot)

    async def once(user: str) -> None:
        query = Query("bench", user, 20, models.now_us(), math.inf, CONTEXT)
        funnel.run(query, await store.read_user(user))

    loop = asyncio.new_event_loop()
    return lambda user: loop.run_until_complete(once(user))


def _peer(made: Reference, quotas: dict[str, int], total: int) -> Callable[[str], None]:
    sys.path.insert(0, str(PEERS_CODE / "shared"))
    try:
        import funnel
    finally:
        sys.path.pop(0)
    items_ = funnel.Items(made.world, made.stores)
    users = funnel.Users(made.world, made.stores, items_)
    retrieval = funnel.Retrieval(made.world, items_, quotas, total)
    ranking = funnel.Ranking(made.world, items_)

    def once(user: str) -> None:
        known = users.read(user)
        found = retrieval.candidates(known, CONTEXT)
        funnel.slate(items_, found, ranking.score(known, CONTEXT, found), 20)

    return once


GROWTHS: dict[str, Callable[[Plan, Say], dict[str, Any]]] = {
    "items": items,
    "candidates": candidates,
    "clients": clients,
}
