"""`streamrec bench batch`: users a second of `batch run` over the reference world, by one process and by several."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.reference_home import Size, reference
from benchmarks.reference_world import NOW_US, item_id, user_id
from bentos.recommender.rules import default_rules
from registry.artifacts import KINDS
from training import batch

DAY_US = 86_400_000_000
EVENTS = 20  # a user


def run(size: Size, cache: Path, count: int, processes: int | None = None) -> dict[str, Any]:
    """The first `count` users of the world, each with `EVENTS` events in a log."""
    world = reference(size, cache).world
    found: dict[str, Any] = {"workload": {"users": count, "items": size.items, "k": 50}, "cores": os.cpu_count()}
    folder = Path(tempfile.mkdtemp(prefix="streamrec-bench-"))
    try:
        write_log(folder / "data", size, count)
        folders = {kind: world / kind for kind in KINDS}
        job = batch.Job(folder / "data", folders, default_rules(), NOW_US, 50, "slate")
        users = [user_id(u) for u in range(count)]
        runs = []
        for n in dict.fromkeys((1, processes or os.cpu_count() or 1)):
            result = batch.run(job, users, folder / f"{n}.parquet", processes=n)
            runs.append(
                {
                    "processes": n,
                    "seconds": round(result.seconds, 3),
                    "users_per_s": round(result.users / result.seconds, 1),
                    "rows": result.rows,
                    "degradation": dict(result.degradations),
                }
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found | {"users_per_s": max(one["users_per_s"] for one in runs), "runs": runs}


def write_log(folder: Path, size: Size, users: int) -> None:
    """A data set over the world's items: clicks at random in the last 30 days."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(size.seed)
    n = users * EVENTS
    columns = {
        "user_id": np.repeat([user_id(u) for u in range(users)], EVENTS),
        "item_id": [item_id(int(i)) for i in rng.integers(0, size.items, n)],
        "timestamp": pa.array(NOW_US - rng.integers(1, 30 * DAY_US, n), pa.timestamp("us", tz="UTC")),
        "event": ["click"] * n,
    }
    pq.write_table(pa.table(columns), folder / "interactions.parquet")
    items = {
        "item_id": [item_id(i) for i in range(size.items)],
        "category": [f"category {i % size.categories}" for i in range(size.items)],
        "published_at": pa.array(np.zeros(size.items, np.int64), pa.timestamp("us", tz="UTC")),
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    (folder / "dataset.toml").write_text('name = "bench"\nclock = "log_end"\n[[positives]]\nevent = "click"\n')
