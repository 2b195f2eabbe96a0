"""What a training takes at a size: CPU seconds and memory of whole trainings against events, and of single stages.

`runs EVENTS …` makes a synthetic world of 20 events a user and 100 an item (as 20 million are of a million users and
200,000 items) and trains on it by the command. `stages DIR` runs the stages that grow with a data set, each in a
process of its own; of those that take steps a few, from which the cost of all is told. CPU seconds rather than those of
the clock: they mean the same on a busy machine. Memory is the sum over the processes of what they do not share (PSS).
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

EVENTS_A_USER, EVENTS_AN_ITEM, DAYS = 20, 100, 60
STEPS = 3
EVERY_S = 0.25


def measured(command: list[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """cpu_s, wall_s, peak_mib and the JSON document that the command prints.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as told:
        process = psutil.Popen(command, stdout=told, env={**os.environ, **(environment or {})})
        peak, spent = 0, {}
        while process.poll() is None:
            now = 0
            for one in [process, *_children(process)]:
                try:
                    now += one.memory_full_info().pss
                    times = one.cpu_times()
                    spent[one.pid] = times.user + times.system
                except psutil.Error:  # it ended meanwhile
                    continue
            peak = max(peak, now)
            time.sleep(EVERY_S)
        told.seek(0)
        said = told.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {
        "cpu_s": round(sum(spent.values()), 1),
        "wall_s": round(time.perf_counter() - started, 1),
        "peak_mib": round(peak / 2**20),
        "document": json.loads(said),
    }


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def run(events: int, folder: Path, seed: int) -> dict[str, Any]:
    """One training of a world of about `events` events, by the command, in `folder`."""
    from training.data import synth

    data = folder / f"world-{events}"
    users, items = max(events // EVENTS_A_USER, 50), max(events // EVENTS_AN_ITEM, 50)
    written = synth.write(data, users=users, items=items, days=DAYS, seed=seed, events=events)
    home = {"STREAMREC_HOME": str(folder / f"home-{events}")}
    found = measured([sys.executable, "-m", "cli", "train", "--data", str(data), "--json"], home)
    document = found.pop("document")
    costs = {r["model"]: r["train_s"] for r in document["ladder"]["rungs"]} if document["ladder"] else {}
    shown = ("ndcg@10", "recall@500", "test_users")
    figures = {name: document["metrics"].get(name) for name in shown}
    return {"events": written, "users": users, "items": items, **found, **figures, "train_s": costs}


# --- single stages ----------------------------------------------------------------------------------------------------


def snapshot(data: Path) -> dict[str, Any]:
    from training.data.snapshot import take

    with tempfile.TemporaryDirectory() as home:
        return {"rows": take(data, Path(home)).rows["interactions"]}


def log(data: Path) -> dict[str, Any]:
    found = _log(data)
    return {"events": len(found), "users": found.n_users}


def item_features(data: Path) -> dict[str, Any]:
    from features.offline.items import item_features_as_of
    from training.data import read

    return {"features": len(item_features_as_of(data, read.log_end_us(data) + 1))}


def graph(data: Path) -> dict[str, Any]:
    from training.models.lightgcn import LightGCNConfig, fit_lightgcn

    found, items = _log(data), _items(data)
    published_us = items.catalogue.published_us
    return _stepped(lambda tick: fit_lightgcn(found.positives(), published_us, LightGCNConfig(), 0, tick))


def two_tower(data: Path) -> dict[str, Any]:
    from training.models.two_tower import TwoTowerConfig, fit_two_tower

    found, items = _log(data), _items(data)
    return _stepped(lambda tick: fit_two_tower(found, items.catalogue, items.titles, TwoTowerConfig(), 0, tick))


def index(data: Path) -> dict[str, Any]:
    import numpy as np

    from contracts.serving import EMBEDDING_DIM
    from training.data import read
    from training.nearest import build_index

    random = np.random.default_rng(0)
    n = read.items(data, ["item_id"]).num_rows
    # Around a few hundred centres, as learned vectors lie.
    centres = random.normal(size=(300, EMBEDDING_DIM))
    drawn = centres[random.integers(0, 300, n + 256)] + random.normal(size=(n + 256, EMBEDDING_DIM))
    vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    _, report = build_index(vectors[:n], vectors[n:], 0)
    return {"vectors": n, "kind": report.kind, "recall_at_200": report.recall_at_200}


STAGES: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "snapshot": snapshot,
    "log": log,
    "item_features": item_features,
    "graph": graph,
    "two_tower": two_tower,
    "index": index,
}


def _items(data: Path) -> Any:
    from training.data import read
    from training.interactions import read_items

    return read_items(data, read.log_end_us(data) + 1)


def _log(data: Path) -> Any:
    from contracts.dataset import DatasetConfig
    from training.data import read
    from training.interactions import read_log

    return read_log(data, DatasetConfig.read(data), _items(data), read.log_end_us(data) + 1)


class _Enough(Exception):
    """The steps that were wanted were taken."""


def _stepped(fit: Callable[[Callable[[str, int, int], None]], object]) -> dict[str, Any]:
    """CPU seconds before the first step, of a step (the first left out), and of all of a fit's steps."""
    at: list[float] = [time.process_time()]
    all_steps = 0

    def tick(stage: str, done: int, total: int) -> None:
        nonlocal all_steps
        at.append(time.process_time())
        all_steps = total
        if done > STEPS:
            raise _Enough

    with contextlib.suppress(_Enough):
        fit(tick)
    step_s = (at[-1] - at[1]) / (len(at) - 2)
    begin_s = at[1] - at[0] - step_s
    return {
        "begin_s": round(begin_s, 1),
        "step_s": round(step_s, 2),
        "steps": all_steps,
        "whole_s": round(begin_s + step_s * all_steps, 1),
    }


def stages(data: Path, names: list[str]) -> dict[str, Any]:
    one = [sys.executable, "-m", "benchmarks.training_size", "stage", str(data)]
    found = {}
    for name in names:
        result = measured([*one, name])
        found[name] = result.pop("document") | result
        print(name, found[name], file=sys.stderr)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_size", description=(__doc__ or "").split("\n")[0]
    )
    commands = parser.add_subparsers(dest="what", required=True)
    whole = commands.add_parser("runs", help="whole trainings, one after the other")
    whole.add_argument("events", type=int, nargs="+")
    whole.add_argument("--seed", type=int, default=0)
    several = commands.add_parser("stages", help="single stages on a data set")
    several.add_argument("data", type=Path)
    several.add_argument("names", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)} [default: all]")
    alone = commands.add_parser("stage", help="one stage, in this process")
    alone.add_argument("data", type=Path)
    alone.add_argument("name", choices=STAGES)
    given = parser.parse_args(arguments)
    if given.what == "stage":
        print(json.dumps(STAGES[given.name](given.data)))
    elif given.what == "stages":
        print(json.dumps(stages(given.data, given.names or list(STAGES)), indent=1))
    else:
        with tempfile.TemporaryDirectory(prefix="streamrec-size-") as folder:
            for events in given.events:
                print(json.dumps(run(events, Path(folder), given.seed)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
