"""What ranking costs: `python -m benchmarks.rank [--items N] [--pairs N] [--json]`, one thread.

Four graphs of the reference world's DCN-V2 over the rows of whole requests, run in turn: the plain one, layer by layer;
folded, in float32; folded, in int8; and the one of the bundle, which is one of the last two. Milliseconds a call are
wall time; `cpu_ms` is the time of the processor, which other work on the machine disturbs less.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
from numpy.typing import NDArray

from benchmarks import paired
from benchmarks.reference_home import Size, reference
from benchmarks.reference_ranker import reference_dcn, sample_rows
from benchmarks.reference_world import NOW_US, user_id
from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.models import RowScorer
from bentos.recommender.onnx_session import open_session, ort
from bentos.recommender.rankers.dcn import FoldedRanker
from bentos.recommender.rankers.onnx_graph import OnnxRanker
from bentos.recommender.types import Query
from features.online.sqlite import SqliteStore
from features.ranking import row_schema
from registry.artifacts import FAST_RANKER, open_bundle
from training.models.dcn_fast import agreement, multiply_adds
from training.models.dcn_folded import fold, folded_graph
from training.models.dcn_int8 import int8_graph
from training.models.dcn_weights import DcnWeights

ROWS = 500
GROWTH = (100, 200, 500, 1000, 2000)
CALLS = 10  # of each graph in a round
CHECKED_USERS = 64
Rows = NDArray[np.float32]


def run(
    size: Size,
    cache: Path,
    pairs: int = 20,
    told: Callable[[str], None] = lambda text: None,
    *,
    extras: bool = True,
) -> dict[str, Any]:
    """pairs: rounds, in each of which every graph runs `CALLS` times over the rows of as many users.

    extras: also growth with the number of rows, and what opening takes.
    """
    told("the reference workload")
    made = reference(size, cache)
    with tempfile.TemporaryDirectory(prefix="streamrec-bench-") as folder:
        files, weights, differs = _graphs(made.world, size, Path(folder))
        rankers = {name: _opened(name, file) for name, file in files.items()}
        told("rows of requests")
        requests = requested(made.world, made.stores, min(CHECKED_USERS, size.users))
        of_size = [_of(rows, ROWS) for rows in requests[:CALLS]]
        told("in turn")
        rounds = _rounds(rankers, of_size, pairs)
        more: dict[str, Any] = {}
        if extras:
            told("growth")
            growth = [(rows, _rounds(rankers, [_of(requests[0], rows)], max(pairs // 2, 6))) for rows in GROWTH]
            told("opening")
            more = {
                "growth": {str(rows): _told(rounds_of) for rows, rounds_of in growth},
                "opening": {name: _opening(name, file, of_size[0]) for name, file in files.items()},
            }
        ranking = open_bundle(made.world / "ranking", "ranking").manifest
        return {
            "workload": {
                "rows": ROWS,
                "width": weights.width,
                "cross_layers": len(weights.cross),
                "hidden": [layer[1].size for layer in weights.deep],
                "embeddings": [table.shape[1] for table in weights.tables],
                "items": size.items,
                "multiply_adds_a_row": {"plain": _plain_products(weights), "folded": multiply_adds(weights)},
            },
            "threads": 1,
            "load_average": os.getloadavg()[0],
            "onnxruntime": ort.__version__,
            "vnni": _vnni(),
            "chosen": ranking.params.get("fast"),
            "bundle_differs_by": differs,
            "graphs": _told(rounds),
            "agreement": _agreement(rankers, requests),
            "bits_that_depend_on_the_batch": _moved(rankers, requests),
            **more,
        }


def _graphs(world: Path, size: Size, folder: Path) -> tuple[dict[str, Path], DcnWeights, float]:
    """By name; the weights of the world's ranker, made again; how far the bundle's own graph is from them."""
    rows = sample_rows(world / "retrieval", size.ranker.users, size.seed)
    weights = reference_dcn(size.ranker, row_schema(), rows, size.seed)
    plain = world / "ranking" / "dcn.onnx"
    logits = weights.slope * weights.logits(rows[:ROWS]) + weights.offset
    differs = float(np.abs(OnnxRanker(open_session(plain)).score(rows[:ROWS]) - 1 / (1 + np.exp(-logits))).max())
    files = {"plain": plain, "float32": folder / "float32.onnx", "int8": folder / "int8.onnx"}
    onnx.save(folded_graph(fold(weights)), str(files["float32"]))
    onnx.save(int8_graph(weights, rows[::4]), str(files["int8"]))
    return files | {"bundle": world / "ranking" / FAST_RANKER}, weights, differs


def _opened(name: str, file: Path) -> RowScorer:
    session = open_session(file)
    return OnnxRanker(session) if name == "plain" else FoldedRanker(session)


def requested(world: Path, stores: Path, users: int) -> list[Rows]:
    """What the funnel ranks for `users` users of the online store, with its item features: float32 [K, F] each."""
    models = load_models({"retrieval": world / "retrieval"})
    funnel = Funnel(models, None)
    with tempfile.TemporaryDirectory(prefix="streamrec-bench-") as copied:
        home = Path(copied) / "home"
        home.mkdir()
        for file in stores.iterdir():
            (home / file.name).write_bytes(file.read_bytes())
        store = SqliteStore(home)
        snapshot = store.read_item_snapshot()
        assert snapshot is not None
        funnel.set_items(snapshot)
        found = []
        for number in range(users):
            state = asyncio.run(store.read_user(user_id(number)))
            context = {"country": ("DE", "FR", "GB", "")[number % 4], "device": ("ios", "android", "web")[number % 3]}
            query = Query(str(number), user_id(number), 20, NOW_US, np.inf, context)
            found.append(funnel.rows(query, *funnel.candidates(query, state)))
        store.close()
    return found


def _of(rows: Rows, n: int) -> Rows:
    """`n` rows of that user: its candidates, over and over."""
    return np.ascontiguousarray(np.resize(rows, (n, rows.shape[1])))


def _rounds(
    rankers: Mapping[str, RowScorer], batches: Sequence[Rows], pairs: int
) -> dict[str, list[tuple[float, float]]]:
    """(wall, CPU) milliseconds a call, a round."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in rankers}
    for ranker in rankers.values():
        for rows in batches:
            ranker.score(rows)
    for number in range(pairs):
        for name in paired.in_turn(list(rankers), number):
            score = rankers[name].score
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(-(-CALLS // len(batches))):
                for rows in batches:
                    score(rows)
            calls = -(-CALLS // len(batches)) * len(batches)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            found[name].append((spent[0] / calls * 1e3, spent[1] / calls * 1e3))
    return found


def _told(rounds: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Any]:
    wall = {name: [one[0] for one in times] for name, times in rounds.items()}
    cpu = {name: [one[1] for one in times] for name, times in rounds.items()}
    return {
        name: {
            "ms": paired.spread(wall[name]),
            "cpu_ms": paired.spread(cpu[name]),
            "best_ms": round(min(wall[name]), 3),
            "times_the_plain": paired.ratio(cpu["plain"], cpu[name]),
        }
        for name in rounds
    }


def _agreement(rankers: Mapping[str, RowScorer], requests: Sequence[Rows]) -> dict[str, Any]:
    rows = np.concatenate(requests)
    ends = np.cumsum([len(one) for one in requests])
    users = np.split(np.arange(len(rows)), ends[:-1])
    scores = {name: np.concatenate([ranker.score(one) for one in requests]) for name, ranker in rankers.items()}
    return {name: asdict(agreement(scores["plain"], scores[name], users)) for name in rankers if name != "plain"}


def _moved(rankers: Mapping[str, RowScorer], requests: Sequence[Rows]) -> dict[str, int]:
    """Rows whose score alone has other bits than beside other rows of its user, or of others in any order."""
    few = [one[:60] for one in requests[:8]]
    rows = np.concatenate(few)
    mixed = np.random.default_rng(0).permutation(len(rows))
    moved = {}
    for name, ranker in rankers.items():
        alone = np.concatenate([ranker.score(rows[at : at + 1]) for at in range(len(rows))])
        beside = np.concatenate([ranker.score(one) for one in few])
        batch = np.empty_like(alone)
        batch[mixed] = ranker.score(np.ascontiguousarray(rows[mixed]))
        moved[name] = int(((alone != beside) | (alone != batch) | (alone != ranker.score(rows))).sum())
    return moved


def _opening(name: str, file: Path, rows: Rows) -> dict[str, float]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(_open_once, name, file, rows).result()
    return {"file_mib": round(file.stat().st_size / 2**20, 2), **found}


def _open_once(name: str, file: Path, rows: Rows) -> dict[str, float]:
    """In a process of its own: the first session of a process pays for the library, so a second one is told."""
    process = psutil.Process()
    _opened(name, file).score(rows)
    before, began = process.memory_info().rss, time.perf_counter()
    ranker = _opened(name, file)
    opened = time.perf_counter() - began
    ranker.score(rows)
    return {"open_ms": round(opened * 1e3, 1), "rss_mib": round((process.memory_info().rss - before) / 2**20, 1)}


def _plain_products(weights: DcnWeights) -> int:
    return sum(weight.size for weight, _ in (*weights.cross, *weights.deep)) + weights.out.size


def _vnni() -> bool | None:
    """Whether this processor sums uint8 × int8 products in one instruction; None where nobody says."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    return "avx512_vnni" in flags or "avx_vnni" in flags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--cache", type=Path, default=Path(".streamrec") / "bench")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    size = Size(users=asked.users, items=asked.items)
    document = run(size, asked.cache, asked.pairs, lambda text: print(text, file=sys.stderr))
    if asked.json:
        print(json.dumps(document, indent=1))
        return
    for name, one in document["graphs"].items():
        agrees = document["agreement"].get(name, {})
        print(
            f"{name:8} {one['ms']['median']:6.2f} ms  {one['times_the_plain']['median']:5.2f} × the plain  "
            + (f"same top 50 {agrees['overlap']:.2%}, NDCG −{agrees['ndcg_loss']:.3%}" if agrees else "")
        )


if __name__ == "__main__":
    main()
