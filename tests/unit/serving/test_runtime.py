"""What the runtime says of itself, in this process and without servers."""

import asyncio
import contextlib
import errno
import os
import threading
import time

import pytest

from benchmarks.reference_world import write_world
from bentos.catalogue.store import CatalogueStore
from bentos.recommender import side_effects
from bentos.recommender.assemble import load_models
from bentos.recommender.bundles import pinned
from bentos.recommender.front import Front
from bentos.recommender.runtime import Runtime
from bentos.telemetry import segments
from contracts.errors import BadRequest, Unreachable
from contracts.http import RecommendationRequest
from contracts.live_items import ItemChange, ItemFacts
from contracts.settings import Settings
from features.online.base import PrecomputedList, Stamped


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
    late = runtime.models.now_us() + 400 * 86_400_000_000
    monkeypatch.setattr(type(runtime.models), "now_us", lambda self: late)
    assert runtime.readiness().best == "stale_features" == answer(runtime).degradation


def test_values_past_their_ttl_are_counted_by_feature(runtime, monkeypatch):
    def counted(feature):
        return f'streamrec_stale_features_total{{feature="{feature}"}}'

    now = runtime.models.now_us()
    runtime._store.write_users({"u1": {"user_tenure_days": Stamped(5.0, now - 49 * 3_600_000_000)}})
    answer(runtime)
    answer(runtime)
    runtime._store.away = True
    answer(runtime)
    metrics = runtime.metrics.render().decode()
    assert counted("user_tenure_days") + " 2.0" in metrics
    assert counted("online_store") + " 1.0" in metrics
    assert counted("user_positives_30d") + " 0.0" in metrics  # never written is no stale value; the series is there


def test_a_breaker_that_is_open_is_told_by_readyz_and_metrics(runtime):
    assert set(runtime.readiness().breakers.values()) == {"closed"}
    runtime._store.away = True
    for _ in range(5):
        assert answer(runtime).degradation == "stale_features"
    asyncio.run(runtime._refresh())
    runtime._store.away = False
    asyncio.run(runtime._refresh())  # it answers again, and is left alone all the same
    ready = runtime.readiness()
    assert (ready.breakers["online_store"], ready.best) == ("open", "stale_features")
    assert ready.components["online_store"].state == "degraded"
    assert answer(runtime).degradation == "stale_features"
    metrics = runtime.metrics.render().decode()
    assert 'streamrec_breaker_state{dependency="online_store"} 2.0' in metrics
    assert 'streamrec_breaker_state{dependency="ranking"} 0.0' in metrics
    assert 'streamrec_store_reads_total{how="failed"} 5.0' in metrics


def test_events_are_refused_at_once_after_five_failures_and_bad_ones_do_not_count(runtime, monkeypatch):
    asked = []

    async def accept(body):
        asked.append(body)
        raise BadRequest("a bad event") if body == b"bad" else Unreachable("disk is full")

    monkeypatch.setattr(runtime._events, "accept", accept)
    for body in (b"bad",) * 8 + (b"good",) * 7:
        with pytest.raises((BadRequest, Unreachable)):
            asyncio.run(runtime.accept_events(body))
    assert (asked.count(b"bad"), asked.count(b"good")) == (8, 5)
    assert runtime.readiness().components["events"].state == "degraded"
    assert runtime.readiness().breakers["events"] == "open"


def test_the_age_of_the_published_lists_is_in_answer_exposure_and_gauge(runtime):
    now = runtime.models.now_us()
    listed = PrecomputedList(("i8", "i4"), (0.9, 0.8), "s1", "t", now - 40 * 3_600_000_000, "all")
    runtime._store.publish_lists("s1", {"u1": listed})
    request = RecommendationRequest("u1", k=2)
    given = asyncio.run(runtime.recommend(request, "r1", time.perf_counter(), None, "lists"))
    assert (given.slate.degradation, given.slate.batch_age_s) == ("batch", 144_000.0)
    assert side_effects.exposure(given.query, given.slate, given.versions).batch_age_s == 144_000.0
    runtime.observe()
    assert "streamrec_batch_age_seconds 144000.0" in runtime.metrics.render().decode()


def test_the_states_of_an_answer_are_in_its_exposure_and_told_to_a_gateway_that_writes_it(runtime, monkeypatch):
    kept = []
    monkeypatch.setattr(runtime._exposures, "append", kept.append)
    request = RecommendationRequest("u1", k=2)
    alone = asyncio.run(runtime.recommend(request, "r1", time.perf_counter()))
    runtime.record(alone)
    assert [exposure.states for exposure in kept] == [alone.states]
    assert alone.states.topology == "colocated"
    through = asyncio.run(runtime.recommend(request, "r2", time.perf_counter(), Front("r2")))
    runtime.record(through)
    assert len(kept) == 1
    assert through.facts.states == through.states


def test_a_consumer_can_shorten_its_deadline_and_not_lengthen_it(runtime):
    began = time.perf_counter()
    request = RecommendationRequest("u1", k=2)
    for within_ms, left_ms in ((None, 10_000), (60_000.0, 10_000), (500.0, 500)):
        given = asyncio.run(runtime.recommend(request, "r1", began, None, "full", within_ms))
        assert given.query.deadline == pytest.approx(began + left_ms / 1e3)


def test_a_flag_holds_while_new_models_are_being_made_and_in_those(runtime, tmp_path):
    """However long they take: it waits for nothing that goes over the catalogue."""
    upkeep = runtime._upkeep
    making, go_on, made = threading.Event(), threading.Event(), upkeep._followed
    flagged = lambda: [bool(runtime.models.catalogue.is_flagged[runtime.models.index.lookup(i)]) for i in ("i7", "n")]  # noqa: E731

    def slowly():
        making.set()
        assert go_on.wait(60)
        return made()

    async def run(store):
        store.apply([ItemChange("n", "put", 1, ItemFacts("category 3"))])
        await upkeep.look_at_catalogue()
        upkeep._followed = slowly
        following = asyncio.create_task(upkeep.follow_catalogue())
        await asyncio.to_thread(making.wait)
        store.apply([ItemChange(item, "flag", 1, flagged=True) for item in ("i7", "n")])
        await upkeep.look_at_catalogue()
        assert flagged()[0]
        assert not following.done()
        go_on.set()
        await following
        assert flagged() == [True, True]

    with contextlib.closing(CatalogueStore(tmp_path)) as store:
        asyncio.run(run(store))
