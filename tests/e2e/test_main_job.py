"""The main job through the commands and over HTTP: import → train → build → serve → recommend → click → changed
recommendation → export → lineage. Each step is what an operator types; only the log is made up (seeded)."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.checklist import CHECKLIST
from contracts.serving import SOURCES
from contracts.settings import Settings
from registry.bento_store import stored_bento
from registry.releases.candidate import missing, read_evidence
from tests.serving_processes import PATIENT

pytestmark = pytest.mark.xdist_group("e2e")

ROOT = Path(__file__).resolve().parents[2]
THINGS = ["MUG", "LANTERN", "CUSHION", "TEAPOT", "RIBBON", "CLOCK", "BASKET", "CANDLE"]
COLOURS = ["RED", "BLUE", "IVORY", "GREEN", "PINK", "BLACK", "SPOTTY", "VINTAGE", "RETRO", "FLORAL"]


def transactions(path: Path) -> None:
    """An invoice log in the form of Online Retail II: customers with a taste for two things each."""
    rng = np.random.default_rng(5)
    n, customers = 6_000, 150
    customer = rng.integers(0, customers, n)
    taste = rng.integers(0, len(THINGS), (customers, 2))
    thing = np.where(rng.random(n) < 0.8, taste[customer, rng.integers(0, 2, n)], rng.integers(0, len(THINGS), n))
    colour = rng.integers(0, len(COLOURS), n)
    kinds = list(zip(thing, colour, strict=True))
    start = datetime(2011, 1, 3, 8)
    seconds = np.sort(rng.integers(0, 75 * 86_400, n))
    pq.write_table(
        pa.table(
            {
                "InvoiceNo": [f"{500_000 + i // 4}" for i in range(n)],
                "StockCode": [
                    f"{20_000 + t * 100 + c}{'a' if c % 3 else 'A'}" for t, c in zip(thing, colour, strict=True)
                ],
                "Description": [f"{COLOURS[c]} {THINGS[t]}" for t, c in kinds],
                "Quantity": pa.array(rng.integers(1, 24, n), pa.int64()),
                "InvoiceDate": pa.array([start + timedelta(seconds=int(s)) for s in seconds], pa.timestamp("us")),
                "UnitPrice": rng.uniform(0.5, 9.5, n).round(2),
                "CustomerID": pa.array([12_000 + int(c) if c else None for c in customer], pa.int64()),
                "Country": [("United Kingdom", "Germany", "France")[c % 3] for c in customer],
            }
        ),
        path,
    )


def typed(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", *words],
        cwd=ROOT,
        env={**os.environ, "STREAMREC_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def streamrec(home: Path, *words: str, expect: int = 0) -> dict[str, Any]:
    done = typed(home, *words, "--json")
    assert done.returncode == expect, f"streamrec {' '.join(words)}\n{done.stdout}\n{done.stderr}"
    document: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return document


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("machine") / ".streamrec"  # hidden, as the default is
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def data(home: Path) -> Path:
    raw = home / "transactions.parquet"
    transactions(raw)
    streamrec(home, "data", "import", "online-retail", str(raw), str(home / "data"))
    return home / "data"


@pytest.fixture(scope="module")
def trained(home: Path, data: Path) -> dict[str, Any]:
    return streamrec(home, "train", "--data", str(data), "--seed", "3")


@pytest.fixture(scope="module")
def built(home: Path, trained: dict[str, Any]) -> dict[str, Any]:
    tag = streamrec(home, "build")
    made = streamrec(home, "features", "materialize", "--data", str(home / "data"), "--bento", tag["tag"])
    assert made["users"] == 149
    return tag


@pytest.fixture(scope="module")
def service(home: Path, built: dict[str, Any]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = home / "serve-test.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "serve", built["tag"], "--port", str(port)],
            cwd=home,  # not the checkout: the Bento's own code must serve
            env={**os.environ, "STREAMREC_HOME": str(home), "STREAMREC_TOKEN": "for-tests", **PATIENT},
            stdout=sink,
            stderr=sink,
        )
    family: set[psutil.Process] = set()
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: ready(url, process, log), 60, f"{url} ready")
        family = set(psutil.Process(process.pid).children(recursive=True))
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        orphans = psutil.wait_procs(list(family), timeout=20)[1]
        assert not orphans, f"left running: {orphans}"


def ready(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def recommend(url: str, user_id: str, **more: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}/v1/recommendations", json={"user_id": user_id, "k": 10, **more}, timeout=10)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_training_registers_three_models_with_metrics_beside_baselines(trained: dict[str, Any]) -> None:
    assert set(trained["models"]) == {"retrieval", "ranking", "fallback"}
    assert all(uri.startswith("models:/streamrec-") for uri in trained["models"].values())
    assert {"ndcg@10", "recall@500"} <= set(trained["metrics"])
    assert {"popularity", "ease"} <= set(trained["baselines"])


def test_a_user_with_a_taste_gets_personal_items_from_the_full_rung(service: str, built: dict[str, Any]) -> None:
    answers = {user: recommend(service, user) for user in ("12001", "12002", "12003")}
    assert {a["degradation"] for a in answers.values()} == {"full"}
    assert {a["bento"] for a in answers.values()} == {built["tag"]}
    slates = {tuple(i["item_id"] for i in a["items"]) for a in answers.values()}
    assert len(slates) == 3
    assert all(len(slate) == 10 for slate in slates)


def test_the_next_recommendation_after_an_event_differs_and_leaves_the_item_out(service: str) -> None:
    before = recommend(service, "12004")
    bought = before["items"][0]["item_id"]
    event = {
        "event_id": str(uuid.uuid4()),
        "user_id": "12004",
        "item_id": bought,
        "event": "purchase",
        "timestamp": datetime.now(UTC).isoformat(),
        "request_id": before["request_id"],
        "position": 1,
    }
    for duplicates in (0, 1):  # the second time it is accepted and not counted
        answer = httpx.post(f"{service}/v1/events", json=[event], timeout=10)
        assert answer.status_code == 202, answer.text
        assert answer.json()["duplicates"] == duplicates
    after = recommend(service, "12004")
    assert bought not in [i["item_id"] for i in after["items"]]
    assert [i["item_id"] for i in after["items"]] != [i["item_id"] for i in before["items"]]


def test_a_request_leads_back_to_its_context_by_token_only(service: str) -> None:
    answer = recommend(service, "12005")
    url = f"{service}/v1/requests/{answer['request_id']}"
    assert httpx.get(url).status_code == 401
    record: dict[str, Any] = {}

    def found() -> bool:
        got = httpx.get(url, headers={"Authorization": "Bearer for-tests"})
        record.update(got.json())
        return got.status_code == 200

    wait_until(found, 10, "the context record")
    assert record["user_id"] == "12005"
    assert set(record["candidates"]) == set(SOURCES)


def test_export_turns_the_log_back_into_a_data_set_that_train_accepts(
    home: Path, data: Path, service: str, tmp_path: Path
) -> None:
    answer = recommend(service, "12006")
    out = tmp_path / "exported"

    def exported() -> bool:
        report = streamrec(home, "data", "export", str(out), "--base", str(data))
        if report["impressions"] >= 10:
            return True
        subprocess.run(["rm", "-r", str(out)], check=True)
        return False

    wait_until(exported, 30, "impressions in the export")
    log = pq.read_table(out / "interactions.parquet")
    shown = {r["item_id"] for r in log.to_pylist() if r.get("request_id") == answer["request_id"]}
    assert {i["item_id"] for i in answer["items"]} <= shown
    streamrec(home, "data", "validate", str(out))


def test_lineage_walks_from_the_bento_to_data_and_code(
    home: Path, built: dict[str, Any], trained: dict[str, Any]
) -> None:
    text = json.dumps(streamrec(home, "models", "lineage", built["tag"]))
    assert trained["run_id"] in text
    for uri in trained["models"].values():
        assert uri in text
    assert built["git_commit"] in text


def test_what_a_trained_bento_lacks_refuses_its_release_line_by_line_with_the_commands(
    home: Path, built: dict[str, Any]
) -> None:
    labels = stored_bento(built["tag"], home).labels
    verdicts = {name.removeprefix("ready."): verdict for name, verdict in labels.items() if name.startswith("ready.")}
    assert set(verdicts) == {item.name for item in CHECKLIST} | {"one_run"}
    assert verdicts["one_run"] == "pass"
    assert verdicts["escalation"] == "inconclusive"  # the default policy names a role and no person
    assert verdicts["lineage"] == "pass"
    answer = typed(home, "release", "start", built["tag"])
    assert answer.returncode == 3, answer.stderr
    lacking = missing(read_evidence(built["tag"], Settings(home=home)), built["tag"])
    assert any("escalation" in line.what for line in lacking)
    told = "".join(answer.stderr.split())  # a terminal breaks lines where it likes
    for line in lacking:
        assert "".join(line.what.split()) in told
        assert "".join(line.command.split()) in told


def test_batch_lists_have_every_user_and_fifty_ranks_at_most(home: Path, data: Path, built: dict[str, Any]) -> None:
    out = home / "batch.parquet"
    streamrec(home, "batch", "run", "--data", str(data), "--out", str(out), "--k", "20")
    lists = pq.read_table(out)
    assert lists.column_names == ["user_id", "item_id", "rank", "score", "sources"]
    assert len(set(lists["user_id"].to_pylist())) == 149
    assert max(lists["rank"].to_pylist()) <= 20
