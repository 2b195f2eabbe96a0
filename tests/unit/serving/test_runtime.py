"""What the runtime says of itself, in this process and without servers."""

import asyncio
import errno
import os
import time

import pytest

from benchmarks.reference_world import write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.bundles import pinned
from bentos.recommender.runtime import Runtime
from bentos.telemetry import segments
from contracts.http import RecommendationRequest
from contracts.settings import Settings
from features.online.base import Stamped


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, users=20, items=100)
    return folder


@pytest.fixture
def runtime(world, tmp_path):
    """As it serves, but for the events' consumer and the background tasks."""
    pins = pinned(None, world)
    settings = Settings(home=tmp_path, online_store="memory", deadline_ms=10_000)
    made = Runtime(settings, pins, load_models(pins.folders))
    made.phase = "serving"
    yield made
    made.phase = "stopped"
    asyncio.run(made.close())


def answer(runtime):
    """One request, recorded."""
    given = asyncio.run(runtime.recommend(RecommendationRequest("u1", k=5), "r1", time.perf_counter()))
    runtime.record(given)
    return given.slate


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)


def test_exposures_are_healthy_again_after_a_write_and_the_errors_stay_counted(runtime, monkeypatch):
    monkeypatch.setattr(segments, "RETRY_S", 0.01)
    answer(runtime)
    assert runtime.readiness().components["exposures"].state == "healthy"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def no_room(*_):
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(segments.SegmentWriter, "_write", no_room)
        answer(runtime)
        until(lambda: runtime.readiness().components["exposures"].state == "degraded")
        assert "No space left" in runtime.readiness().components["exposures"].detail
        assert runtime.readiness().status == "degraded"
    until(lambda: runtime.readiness().components["exposures"].state == "healthy")
    runtime.observe()
    metrics = runtime.metrics.render().decode()
    assert 'streamrec_records{log="exposures",state="errors"} 0.0' not in metrics
    assert 'streamrec_records{log="exposures",state="dropped"} 0.0' in metrics


def test_without_the_store_the_best_rung_is_the_one_that_answers_have(runtime):
    asyncio.run(runtime._refresh())
    assert (runtime.readiness().best, answer(runtime).degradation) == ("full", "full")
    runtime._store.away = True
    asyncio.run(runtime._refresh())
    ready = runtime.readiness()
    assert (ready.best, ready.status, ready.components["online_store"].state) == (
        "stale_features",
        "degraded",
        "degraded",
    )
    assert answer(runtime).degradation == ready.best
    runtime._store.away = False
    asyncio.run(runtime._refresh())
    assert (runtime.readiness().best, runtime.readiness().status) == ("full", "ready")


def test_item_features_past_their_ttl_lower_the_best_rung(runtime, monkeypatch):
    late = runtime._models.now_us() + 400 * 86_400_000_000
    monkeypatch.setattr(type(runtime._models), "now_us", lambda self: late)
    assert runtime.readiness().best == "stale_features" == answer(runtime).degradation


def test_values_past_their_ttl_are_counted_by_feature(runtime, monkeypatch):
    def counted(feature):
        return f'streamrec_stale_features_total{{feature="{feature}"}}'

    now = runtime._models.now_us()
    runtime._store.write_users({"u1": {"user_tenure_days": Stamped(5.0, now - 49 * 3_600_000_000)}})
    answer(runtime)
    answer(runtime)
    runtime._store.away = True
    answer(runtime)
    metrics = runtime.metrics.render().decode()
    assert counted("user_tenure_days") + " 2.0" in metrics
    assert counted("online_store") + " 1.0" in metrics
    assert counted("user_positives_30d") + " 0.0" in metrics  # never written is no stale value; the series is there
