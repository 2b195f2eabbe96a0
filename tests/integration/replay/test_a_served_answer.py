"""`streamrec replay` against a real service: two workers that answer while everything changes under them."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.reference_world import item_id, user_id
from bentos.telemetry.contexts import read_contexts
from bentos.telemetry.kinds import context_of_row
from monitoring.replay.record import Logged
from monitoring.replay.replay import Replayer
from tests.changing_service import folders
from tests.serving_processes import ROOT, TOKEN, Served, running, wait_until

SERVE = ["-m", "cli", "serve", "--port", "0", "--json", "--drain-s", "0", "--workers", "2"]
MAY = {"authorization": f"Bearer {TOKEN}"}


def command(home: Path, world: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("STREAMREC_")}
    env |= {"STREAMREC_HOME": str(home), "STREAMREC_BUNDLES": str(world)}
    return subprocess.run(
        [sys.executable, "-m", "cli", "replay", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )


def keep_changing(served: Served, stop: threading.Event) -> None:
    rng = np.random.default_rng(3)
    with httpx.Client(base_url=served.url, headers=MAY, timeout=30) as http:
        while not stop.is_set():
            n = int(rng.integers(400))
            new = {"item_id": f"new{n}", "category": f"category {n % 20}", "price": float(n), "is_promoted": n % 3 == 0}
            http.put("/v1/items", json=[new, {**new, "item_id": item_id(n)}]).raise_for_status()
            http.post(f"/v1/items/{item_id(int(rng.integers(400)))}/flag", json={"flagged": n % 2 == 0})
            stop.wait(0.05)


def ask(served: Served, row: int) -> str:
    rng = np.random.default_rng(row)
    answer = httpx.post(
        f"{served.url}/v1/recommendations",
        json={
            "user_id": user_id(int(rng.integers(70))),
            "k": int(rng.choice([5, 20, 100])),
            "context": {"country": "DE", "device": "ios"},
            "exclude": [item_id(int(at)) for at in rng.integers(0, 400, 5)],
        },
        timeout=30,
    ).json()
    event = {"event_id": f"e{row}", "user_id": answer["user_id"], "event": "click", "request_id": answer["request_id"]}
    event |= {"item_id": answer["items"][0]["item_id"], "timestamp": "2026-01-01T00:00:00Z"}
    if row % 4 == 0:
        httpx.post(f"{served.url}/v1/events", json=[event], timeout=30).raise_for_status()
    return str(answer["request_id"])


def test_what_two_workers_answer_while_everything_changes_is_had_again(
    worlds: Mapping[str, Path], tmp_path: Path
) -> None:
    world, home, stop = worlds["wall"], tmp_path / "home", threading.Event()
    with running(SERVE, home, world, STREAMREC_ITEM_COUNTS_S="0.5", STREAMREC_LOG_CANDIDATES="0.1") as served:
        changing = threading.Thread(target=keep_changing, args=(served, stop))
        changing.start()
        try:
            with ThreadPoolExecutor(4) as pool:
                asked = list(pool.map(lambda row: ask(served, row), range(160)))
        finally:
            stop.set()
            changing.join()
        wait_until(lambda: len(read_contexts(home)) >= len(asked), 20, "all records in the log")
    replayer = Replayer(home, lambda tag: (tag, folders(world)))
    records = map(context_of_row, read_contexts(home).to_pylist())
    found = {record.request_id: replayer.replay(Logged(record.request_id, record, None)) for record in records}
    assert set(asked) <= set(found)
    replayer.close()
    different = {request: (r.why, r.unlike) for request, r in found.items() if r.verdict != "same"}
    assert different == {}
    replayed = [r for r in found.values() if r.how == "replayed"]
    assert len(replayed) > 140
    assert len({(r.states.flags, r.states.facts, r.states.counts) for r in replayed if r.states}) > 10

    request = replayed[-1].request_id
    done = command(home, world, request, "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, document["verdict"], document["exact"]) == (0, "same", True)
    assert document["states"]["machine"].count("numpy") == 1
    told = command(home, world, request)
    assert told.returncode == 0
    assert "bit for bit" in told.stdout
    for stage in ("hydrate", "source.two_tower", "merge", "filter", "rank", "rerank"):
        assert stage in told.stdout
    missing = command(home, world, "01a2047b-0ac7-7fe7-8075-9155bb00a207")
    assert missing.returncode == 4
    assert "no log under" in missing.stderr
