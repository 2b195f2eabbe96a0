"""What the exported files take: real bundles for what is asked, given figures for the verdicts."""

import time
from pathlib import Path

import pytest

from benchmarks.reference_world import write_world
from contracts.budgets import Budgets
from contracts.framing import LATENCY_MS
from contracts.quality import QualityPolicy
from registry.artifacts import open_bundle
from training import latency
from training.latency import Latency, judged, latency_checks, measure
from training.release_checks import release_checks


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "CALLS", 5)


def test_the_exported_files_are_asked_for_500_candidates_as_they_serve(tmp_path: Path) -> None:
    folders = write_world(tmp_path, users=30, items=150)
    bundles = {kind: open_bundle(path, kind) for kind, path in folders.items()}
    found = latency_checks(bundles, dict.fromkeys(folders, 60_000.0))
    assert {kind: check.verdict for kind, check in found.items()} == dict.fromkeys(folders, "pass")
    for check in found.values():
        assert 0 < check.figures["p50_ms"] <= check.figures["p99_ms"]
        assert check.figures["budget_ms"] == 60_000
    (folders["ranking"] / "dcn.onnx").unlink()
    (folders["ranking"] / "dcn_fast.onnx").unlink(missing_ok=True)
    found = latency_checks(bundles, dict.fromkeys(folders, 60_000.0))
    assert found["ranking"].verdict == "inconclusive"
    assert "dcn" in found["ranking"].detail
    assert "light ranker, 500 candidates" in found["fallback"].detail


class NoVersions:
    def versions(self, _: str) -> list[object]:
        return []


def test_a_model_has_no_more_time_than_serving_gives_it_whatever_its_framing_says(tmp_path: Path) -> None:
    folders = write_world(tmp_path, users=30, items=150)
    bundles = {kind: open_bundle(path, kind) for kind, path in folders.items()}
    relaxed = {kind: {"budget_ms": LATENCY_MS["relaxed"]} for kind in folders}

    def budgets(serving: Budgets | None) -> dict[str, float]:
        found = release_checks(NoVersions(), bundles, QualityPolicy(), relaxed, serving=serving)  # type: ignore[arg-type]
        return {kind: check.figures["budget_ms"] for kind, checks in found.items() for check in checks[1:2]}

    # By the defaults of `retrieval_budget_ms` and `ranking_budget_ms` in docs/serving.md.
    assert budgets(None) == {"retrieval": 30, "ranking": 50, "fallback": 150}
    assert budgets(Budgets(ranking_ms=20)) == {"retrieval": 30, "ranking": 20, "fallback": 150}
    slow = judged("ranking", Latency(300, p50_ms=60.0, p99_ms=61.0, cpu_p99_ms=60.0), 150.0, 50.0)
    assert slow.verdict == "fail"
    assert "budget 50;" in slow.detail
    assert "would allow 150" in slow.detail
    assert judged("ranking", Latency(300, 30.0, 31.0, 30.0), framed_ms=20.0, served_ms=50.0).verdict == "fail"


def test_cpu_over_the_budget_fails_a_busy_clock_does_not_and_waiting_is_told() -> None:
    assert judged("ranking", Latency(300, p50_ms=3.0, p99_ms=61.0, cpu_p99_ms=4.0), 50.0).verdict == "pass"
    assert judged("ranking", Latency(300, p50_ms=3.0, p99_ms=90.0, cpu_p99_ms=51.0), 50.0).verdict == "fail"
    waits = judged("ranking", Latency(300, p50_ms=55.0, p99_ms=61.0, cpu_p99_ms=4.0), 50.0)
    assert waits.verdict == "inconclusive"
    assert "waits" in waits.detail
    assert waits.command == "streamrec models check BENTO-OR-MODEL"


def test_the_quietest_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"clock": 0.0, "cpu": 0.0}
    calls: list[int] = []

    def call(user: int) -> None:
        calls.append(user)
        slow = len(calls) <= latency.USERS + latency.CALLS  # warming up, and the first round
        now["clock"] += 0.5 if slow else 0.002
        now["cpu"] += 0.4 if slow else 0.001

    monkeypatch.setattr(time, "perf_counter", lambda: now["clock"])
    monkeypatch.setattr(time, "thread_time", lambda: now["cpu"])
    found = measure(call)
    assert found.calls == 3 * 5
    assert (found.cpu_p99_ms, found.p50_ms) == (pytest.approx(1.0), pytest.approx(2.0))
    assert set(calls) == set(range(latency.USERS))
