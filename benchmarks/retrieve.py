"""Retrieval by itself: the nearest items of a catalogue against what FAISS offers as it comes, and the funnel's stages.

    python -m benchmarks.retrieve [--items 20000,200000] [--stages] [--json]

Vectors and queries are those of the reference world: items around the centres of their categories, users near a few of
them. 3 % of the items must not come back. Each contestant brings 200 allowed ones, one query at a time, in one thread;
all take turns within a round. Milliseconds are CPU time: others on the machine do not count.
"""

import argparse
import asyncio
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.paired import in_turn, median, ratio, spread
from benchmarks.reference_home import Size, reference
from benchmarks.reference_world import items_near, tastes_near
from bentos.recommender.ann import NearestItems
from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.rules import default_rules
from bentos.recommender.types import Query
from contracts.serving import EMBEDDING_DIM
from contracts.settings import load_settings
from features.online.base import UserState
from features.online.sqlite import SqliteStore
from training.nearest import build_index, exact_top, overlap

TOP = 200
MARGIN = 64  # how much further the others read, as some of what they find is not allowed
BLOCKED = 0.03
HNSW_UP_TO = 500_000  # items; beyond, building it takes the better part of an hour
CATEGORIES = 200

Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def run(
    items: Sequence[int] = (20_000, 200_000),
    *,
    queries: int = 200,
    rounds: int = 10,
    stages_of: tuple[Size, Path] | None = None,
    seed: int = 7,
) -> dict[str, Any]:
    """One document. stages_of: also the stages of the funnel on a reference world of this size, kept in this folder."""
    faiss.omp_set_num_threads(1)
    document: dict[str, Any] = {
        "top": TOP,
        "dimensions": EMBEDDING_DIM,
        "blocked": BLOCKED,
        "nearest": [nearest(n, queries, rounds, seed) for n in items],
    }
    if stages_of is not None:
        document["funnel"] = stages(*stages_of, users=queries, rounds=rounds)
    return document


def nearest(n: int, queries: int, rounds: int, seed: int) -> dict[str, Any]:
    """Contestants over n items: ms a query, recall@200 against exact search over what is allowed, seconds to build."""
    rng = np.random.default_rng(seed)
    centres = items_near(rng, np.zeros((1, EMBEDDING_DIM), np.float32), np.zeros(CATEGORIES, np.int32))
    vectors = items_near(rng, centres, rng.integers(0, CATEGORIES, n).astype(np.int32))
    asked, checked = tastes_near(rng, centres, queries), tastes_near(rng, centres, 128)
    blocked = rng.random(n) < BLOCKED
    exact = np.flatnonzero(~blocked)[exact_top(vectors[~blocked], asked, TOP)]

    began = time.perf_counter()
    index, report = build_index(vectors, checked, seed)
    ours = NearestItems(vectors, index)
    contestants: dict[str, tuple[Search, float]] = {
        "ours": (lambda v: ours.search(v, blocked, TOP).items.astype(np.int64), time.perf_counter() - began)
    }
    for name, made in (("faiss_flat", _flat), ("faiss_hnsw", _hnsw)):
        if name == "faiss_hnsw" and n > HNSW_UP_TO:
            continue
        began = time.perf_counter()
        contestants[name] = (_read_further(made(vectors), blocked), time.perf_counter() - began)

    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds):
        for name in in_turn(list(contestants), round_):
            search, _ = contestants[name]
            started = time.process_time()
            for vector in asked:
                search(vector)
            taken[name].append((time.process_time() - started) / len(asked) * 1e3)
    figures = {
        name: {
            "ms": spread(taken[name]),
            "recall_at_200": round(overlap(exact, np.stack([search(v) for v in asked])), 4),
            "build_s": round(build_s, 2),
            **({} if name == "ours" else {"times_ours": ratio(taken[name], taken["ours"])}),
        }
        for name, (search, build_s) in contestants.items()
    }
    return {"items": n, "index": report.kind, "nprobe": report.nprobe, "contestants": figures}


def stages(size: Size, cache: Path, *, users: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of each stage of the funnel in this process, with real look-ups, without HTTP."""
    made = reference(size, cache)
    models = load_models({"retrieval": made.world / "retrieval", "ranking": made.world / "ranking", "fallback": None})
    funnel, store = Funnel(models, default_rules()), SqliteStore(made.stores)
    funnel.warm()

    async def read() -> list[UserState]:
        return [await store.read_user(f"u{row}") for row in range(min(users, size.users))]

    states = asyncio.run(read())
    taken: dict[str, list[float]] = {}
    whole: list[float] = []
    for _ in range(rounds):
        began = time.process_time()
        for state in states:
            query = Query("", state.user_id, 20, models.now_us(), math.inf, {"country": "DE", "device": "ios"})
            slate = funnel.run(query, state)
            for name, ms in slate.stages_ms.items():
                taken.setdefault(name, []).append(ms)
        whole.append((time.process_time() - began) / len(states) * 1e3)
    return {
        "items": size.items,
        "users": size.users,
        "cpu_ms": spread(whole),
        "stages_ms": {name: round(median(ms), 4) for name, ms in taken.items()},  # wall clock; `rank` includes `rows`
    }


def _flat(vectors: NDArray[np.float32]) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def _hnsw(vectors: NDArray[np.float32]) -> Any:
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 100
    index.add(vectors)
    index.hnsw.efSearch = 300
    return index


def _read_further(index: Any, blocked: NDArray[np.bool_]) -> Search:
    """The usual way to leave items out: ask for more and drop them."""

    def search(vector: NDArray[np.float32]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = index.search(vector[None, :], TOP + MARGIN)[1][0]
        return found[~blocked[found]][:TOP]

    return search


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieve", description=__doc__.splitlines()[0])
    parser.add_argument("--items", default="20000,200000", help="catalogue sizes, by commas; 2000000 takes minutes")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--stages", action="store_true", help="also the stages of the funnel on the reference world")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse_args()
    sizes = [int(word) for word in arguments.items.split(",")]
    stages_of = (Size(), load_settings().home / "bench") if arguments.stages else None
    document = run(sizes, rounds=arguments.rounds, stages_of=stages_of)
    if arguments.json:
        print(json.dumps(document, indent=1))
        return
    for one in document["nearest"]:
        print(f"{one['items']:,} items, top {TOP}, one thread ({one['index']}, nprobe {one['nprobe']})")
        for name, figure in one["contestants"].items():
            low, high = figure["ms"]["low"], figure["ms"]["high"]
            times = figure.get("times_ours", {"median": 1.0})["median"]
            print(
                f"  {name:11} {figure['ms']['median']:7.3f} ms ({low:.3f}–{high:.3f})  recall "
                f"{figure['recall_at_200']:.4f}  {times:6.1f} × ours  built in {figure['build_s']:.1f} s"
            )
    if "funnel" in document:
        print(json.dumps(document["funnel"], indent=1))


if __name__ == "__main__":
    main()
