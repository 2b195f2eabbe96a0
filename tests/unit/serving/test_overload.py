"""More requests at once than can be ranked: through the entry, the real funnel and the real compute thread."""

import asyncio
import json
import time
from collections import Counter

import pytest

from benchmarks.reference_world import write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.bundles import pinned
from bentos.recommender.entry import Entry
from bentos.recommender.runtime import Runtime
from bentos.recommender.types import Query
from contracts.settings import Settings

AT_ONCE = 300


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, users=20, items=100)
    return folder


def serving(world, home, **settings):
    pins = pinned(None, world)
    runtime = Runtime(
        Settings(home=home, online_store="memory", deadline_ms=10_000, **settings), pins, load_models(pins.folders)
    )
    runtime.phase = "serving"
    return runtime


async def ask(app, user):
    """Status and answer of one request."""
    sent, body = [], json.dumps({"user_id": f"u{user}", "k": 5}).encode()

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/v1/recommendations", "headers": []}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(b"".join(m.get("body", b"") for m in sent[1:]))


def test_a_burst_is_answered_by_all_rungs_and_nobody_is_refused_and_full_comes_back(world, tmp_path):
    async def main():
        runtime = serving(world, tmp_path)
        app = Entry(None, lambda: runtime)
        first = await ask(app, 0)
        burst = await asyncio.gather(*(ask(app, i % 20) for i in range(AT_ONCE)))
        loop = asyncio.get_running_loop()
        until = loop.time() + 20
        while (last := await ask(app, 0))[2]["degradation"] != "full":
            assert loop.time() < until, "no full answer again"
            await asyncio.sleep(0.05)
        counted = runtime.metrics.render().decode()
        await runtime.close()
        return first, burst, last, counted

    first, burst, last, counted = asyncio.run(main())
    assert first[2]["degradation"] == last[2]["degradation"] == "full"
    assert Counter(status for status, _, _ in burst) == {200: AT_ONCE}
    rungs = Counter(answer["degradation"] for _, _, answer in burst)
    assert rungs["full"] > 0
    assert rungs["popularity"] + rungs["cached"] > AT_ONCE / 2
    assert all(len(answer["items"]) == 5 for _, _, answer in burst)
    assert 'streamrec_admissions_total{aim="lists"}' in counted
    assert 'aim="refused"' not in counted


def test_with_lists_full_too_the_rest_is_told_when_to_come_again(world, tmp_path):
    async def main():
        runtime = serving(world, tmp_path)
        app = Entry(None, lambda: runtime)
        admission = runtime._load.admission
        for _ in range(50):
            admission.tick(1.0)  # a loop that comes a second late to everything
        for _ in range(100):
            admission.learn("full", 1e4)  # so that one request is more than can be done, on a slow machine too
        refused = await ask(app, 0)
        await runtime.close()
        return refused

    status, headers, problem = asyncio.run(main())
    assert (status, headers[b"retry-after"]) == (429, b"1")
    assert problem["type"].endswith("overloaded")


@pytest.mark.parametrize("ceiling", ["lists", "full"])
def test_a_loop_that_stays_late_answers_from_what_is_at_hand_whatever_the_ceiling(ceiling, world, tmp_path):
    async def main():
        runtime = serving(world, tmp_path, aim=ceiling)
        runtime._load.close()  # the ticks are those that follow
        admission, app = runtime._load.admission, Entry(None, lambda: runtime)
        for _ in range(200):
            runtime.admit(time.perf_counter(), None, within_ms=0.0)  # more than one thread's load
        for _ in range(9):
            admission.tick(0.09)
        admission.overloaded, admission._look_at, admission.lag_s = True, float("inf"), 10.0
        status, _, answer = await ask(app, 0)
        runtime.observe()
        counted = runtime.metrics.render().decode()
        await runtime.close()
        return status, answer["degradation"], counted

    status, degradation, counted = asyncio.run(main())
    assert (status, degradation) == (200, "popularity")
    assert 'streamrec_admissions_total{aim="at_hand"}' in counted
    assert 'aim="refused"' not in counted


def test_an_operator_may_lower_the_ceiling(world, tmp_path):
    async def main():
        runtime = serving(world, tmp_path, aim="simple_ranking")
        status, _, answer = await ask(Entry(None, lambda: runtime), 0)
        await runtime.close()
        return status, answer["degradation"]

    assert asyncio.run(main()) == (200, "simple_ranking")


def test_a_user_without_features_is_not_ranked_deeply_while_others_wait_and_the_notes_say_so(world, tmp_path):
    async def main():
        runtime = serving(world, tmp_path)
        runtime._load.admission.overloaded = True
        query = Query("r", "nobody", 5, runtime.models.now_us(), asyncio.get_running_loop().time() + 10)
        slate = await runtime.funnel.recommend(query, runtime._store)
        runtime._load.admission.overloaded = False
        calm = await runtime.funnel.recommend(query, runtime._store)
        await runtime.close()
        return slate, calm

    slate, calm = asyncio.run(main())
    assert (slate.degradation, calm.degradation) == ("simple_ranking", "full")
    assert any("not asked under load" in note and "features are defaults" in note for note in slate.notes)
