"""What the exported files take: real bundles for what is asked, given figures for the verdicts."""

import time
from pathlib import Path

import pytest

from benchmarks.reference_world import write_world
from registry.artifacts import open_bundle
from training import latency
from training.latency import Latency, judged, latency_checks, measure


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
