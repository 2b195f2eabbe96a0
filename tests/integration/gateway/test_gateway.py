"""What a consumer meets at the gateway, over real processes."""

import concurrent.futures
import json
import time

import httpx
import pytest

from contracts.routing import Pass, Upstream
from tests.integration.gateway.conftest import TOKEN, canary, consumer
from tests.serving_processes import wait_until


def has_popularity(world):
    wait_until(lambda: all(d["last_resort"]["popularity"] for d in world.all_ready().values()), 10, "a popularity list")


def settle(read, condition, why):
    """Records reach the disk some milliseconds after the answer."""
    return wait_until(lambda: (found := read()) and condition(found) and found, 10, why)


@pytest.fixture
def two(world):
    """Champion alpha, candidate beta at 50 %: everyone is candidate or control."""
    world.stub("alpha")
    world.stub("beta")
    world.write(release=canary(50))
    world.start()
    has_popularity(world)
    return world


def test_a_slate_says_who_served_it_and_the_log_says_who_was_assigned(two):
    answers = [two.recommend(f"u{n}").json() for n in range(20)]
    assert {(a["variant"], a["bento"]) for a in answers} == {("candidate", "beta"), ("control", "alpha")}
    assert all(a["experiments"] == {"r1": a["variant"]} for a in answers)
    assert "versions" not in answers[0]
    assert "front" not in answers[0]
    exposures = settle(two.exposures, lambda e: len(e) == 20, "20 exposures")
    logged = {e["request_id"]: e for e in exposures}
    for answer in answers:
        exposure = logged[answer["request_id"]]
        assert exposure["assigned"] == exposure["served"] == answer["variant"]
        assert exposure["probability"] == pytest.approx(0.5)
        assert exposure["item_ids"] == [i["item_id"] for i in answer["items"]]
        assert exposure["versions"]["bento"] == answer["bento"]
        assert exposure["versions"]["routing_table"] == "1.1"
        assert exposure["clock_us"] == 5  # the stub's
    attempts = settle(two.attempts, lambda a: len(a) == 20, "20 attempts")
    assert {a["outcome"] for a in attempts} == {"ok"}
    assert {a["release"] for a in attempts} == {"r1"}
    assert {tuple(a["panel"]) for a in attempts} == {("no_context",)}


def test_a_bento_hears_the_time_left_but_never_the_consumers_key(two):
    two.write(release=canary(50), consumers=(consumer("shop", "secret-1"),))
    wait_until(lambda: two.recommend("u1").status_code == 401, 5, "the table with keys")
    answer = two.recommend("u1", debug=True, headers={"authorization": "Bearer secret-1"}).json()
    assert answer["debug"]["authorization"] == ""
    assert 0 < float(answer["debug"]["deadline_ms"]) < 2000 * 0.6
    assert answer["debug"]["gateway"]["assigned"] == answer["variant"]


@pytest.mark.parametrize("mode", ["fail", "broken", "nan", "twice", "reset", "empty"])
def test_a_candidate_that_fails_every_request_costs_no_consumer_anything(two, load, mode):
    with load(clients=3) as running:
        running.wait(60)
        two.stubs["beta"].tell(mode=mode)
        began = time.monotonic()
        if mode != "empty":  # an empty slate is an answer: no breaker, but users get the champion's
            wait_until(lambda: two.ready()["breakers"]["beta"] != "closed", 2, "the breaker open")
            assert time.monotonic() - began < 2
        seen = len(two.stubs["beta"].seen)
        running.wait(150)
    assert not running.failed
    if mode != "empty":
        assert len(two.stubs["beta"].seen) - seen < 10  # probes
    after = [e for e in two.exposures() if e["assigned"] == "candidate" and e["served"] != "candidate"]
    assert {e["served"] for e in after} == {"champion"}
    assert all(e["item_ids"] for e in after)


def test_a_candidate_that_hangs_is_late_and_the_champion_answers_within_the_same_deadline(world, load):
    world.stub("alpha")
    world.stub("beta").tell(mode="hang")
    world.write(release=canary(100))
    world.start(deadline_ms=300)
    has_popularity(world)
    began = time.perf_counter()
    answer = world.recommend("u1").json()
    took_ms = (time.perf_counter() - began) * 1000
    assert answer["variant"] == "champion"
    assert 100 < took_ms < 400
    attempts = settle(world.attempts, lambda a: len(a) == 2, "both attempts")
    assert sorted((a["variant"], a["outcome"], a["status"]) for a in attempts) == [
        ("candidate", "late", 0),
        ("champion", "ok", 200),
    ]


def test_the_breaker_lets_a_candidate_back_in_that_has_recovered(two, load):
    two.stubs["beta"].tell(mode="fail")
    with load(clients=2) as running:
        wait_until(lambda: two.ready()["breakers"]["beta"] == "open", 5, "open")
        two.stubs["beta"].tell()
        wait_until(lambda: two.ready()["breakers"]["beta"] == "closed", 15, "closed again")
    assert not running.failed


def test_a_killed_champion_worker_costs_nothing_while_another_one_lives(world, load):
    world.stub("alpha-1")
    world.stub("alpha-2")
    world.write()
    world.start()
    has_popularity(world)
    with load() as running:
        running.wait(50)
        world.stubs["alpha-1"].kill()
        running.wait(200)
        world.stubs["alpha-1"].start()
        wait_until(lambda: world.ready()["upstreams"]["alpha"]["state"] == "ready", 10, "it is back")
        running.wait(50)
    assert not running.failed
    assert {variant for _, _, variant in running.results} == {"champion"}


def test_a_dead_champion_means_the_users_own_slate_then_popularity_also_after_a_restart(world, load):
    world.stub("alpha")
    world.write()
    world.start()
    has_popularity(world)
    own = world.recommend("known").json()
    with load() as running:
        running.wait(30)
        world.stubs["alpha"].kill()
        running.wait(100)
    assert not running.failed
    cached = world.recommend("known", k=3, exclude=["a0"]).json()
    assert (cached["variant"], cached["degradation"]) == ("fallback", "cached")
    assert [i["item_id"] for i in cached["items"]] == [i["item_id"] for i in own["items"]][1:4]
    popular = world.recommend("unknown", k=4, exclude=["p1"]).json()
    assert (popular["variant"], popular["degradation"]) == ("fallback", "popularity")
    assert [i["item_id"] for i in popular["items"]] == ["p0", "p2", "p3", "p4"]
    ready = world.ready()
    assert ready["status"] == "degraded"
    assert "alpha" in ready["components"]["upstreams"]["detail"]
    world.gateways[0].terminate()
    world.gateways.pop().wait(15)
    world.start()
    assert world.recommend("known").json()["degradation"] == "popularity"
    exposures = settle(world.exposures, lambda e: len(e) > 100, "the log")
    assert {e["served"] for e in exposures} == {"champion", "fallback"}
    assert {e["assigned"] for e in exposures} == {"champion"}


def test_one_gateway_process_of_two_may_be_killed(world, load):
    world.stub("alpha")
    world.write()
    world.start(processes=2)
    has_popularity(world)
    with load(clients=6, retry_reset=True) as running:
        running.wait(60)
        victim = world.gateways.pop(0)
        victim.kill()
        victim.wait()
        running.wait(200)
    assert not running.failed
    assert running.retried <= 6  # each connection at most once


def test_a_table_is_applied_by_all_processes_within_two_seconds_and_a_bad_one_is_refused(world):
    world.stub("alpha")
    world.stub("beta")
    world.write()
    world.start(processes=2)
    name = world.write(release=canary(10))
    began = time.monotonic()
    wait_until(lambda: {d["table"]["name"] for d in world.all_ready().values()} == {name}, 5, "the new table")
    assert time.monotonic() - began < 2
    for raw in ("{", json.dumps({"payload": "{}", "signature": "AAAA"}), world.signer.seal('{"epoch": 1}')):
        world.write(raw=raw)
        wait_until(lambda: all(d["table"]["problem"] for d in world.all_ready().values()), 5, "a refusal")
        documents = world.all_ready().values()
        assert {d["table"]["name"] for d in documents} == {name}
        assert {d["status"] for d in documents} == {"degraded"}
        assert world.recommend().status_code == 200
        world.write(release=canary(10))
        wait_until(lambda: not any(d["table"]["problem"] for d in world.all_ready().values()), 5, "a good one again")
        name = world.ready()["table"]["name"]


def test_a_release_that_ends_leaves_no_request_behind(two, load):
    with load() as running:
        for weight in (0, 50, 100, 25):
            two.write(release=canary(weight))
            running.wait(40)
        two.write(bentos={"alpha": Upstream(urls=(two.stubs["alpha"].url,))})
        running.wait(60)
    assert not running.failed
    assert set(two.ready()["upstreams"]) == {"alpha"}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 20_000, 400),
        (b'{"user_id": "u", "k": 0}', 400),
        (b'{"user_id": "u", "what": 1}', 400),
        (json.dumps({"user_id": "u", "context": {"c": "x" * 257}}).encode(), 400),
        (json.dumps({"user_id": "u", "context": {"c": "x" * 1_000_000}}).encode(), 400),
        (json.dumps({"user_id": "u", "context": {"c": "x" * 1_100_000}}).encode(), 413),
    ],
)
def test_bad_input_is_refused_at_the_gateway_and_never_reaches_a_bento(bad, content, status):
    answer = bad.http.post("/v1/recommendations", content=content)
    assert answer.status_code == status
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["request_id"]
    assert bad.stubs["alpha"].seen == ""


@pytest.fixture(scope="module")
def bad():
    import tempfile
    from pathlib import Path

    from tests.integration.gateway.conftest import World

    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        world = World(Path(folder))
        try:
            world.stub("alpha")
            world.write()
            world.start()
            has_popularity(world)
            yield world
        finally:
            world.close()


def test_other_addresses_of_the_gateway(bad):
    assert bad.http.get("/livez").json() == {"status": "alive"}
    paths = bad.http.get("/v1/openapi.json").json()["paths"]
    assert {"/v1/recommendations", "/v1/events", "/readyz"} <= set(paths)
    assert bad.http.get("/v1/recommendations").status_code == 405
    assert bad.http.get("/v1/what").status_code == 404
    a_request = "/v1/requests/01890000-0000-7000-8000-000000000000"
    assert bad.http.get(a_request).status_code == 401
    assert bad.http.get(a_request, headers={"authorization": "Bearer no"}).status_code == 403
    assert bad.http.get(a_request, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 404
    assert bad.metric("streamrec_gateway_table_version") == 1


def test_keys_and_rates_are_those_of_the_table(world):
    world.stub("alpha")
    world.write(consumers=(consumer("shop", "k1", rate_per_s=0.1, burst=3), consumer("app", "k2")))
    world.start()
    shop, app = ({"authorization": f"Bearer {key}"} for key in ("k1", "k2"))
    assert world.recommend().status_code == 401
    assert world.recommend(headers={"authorization": "Bearer k3"}).status_code == 403
    answers = [world.recommend(headers=shop) for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
    assert world.recommend(headers=app).status_code == 200
    event = {"event_id": "e", "user_id": "u", "item_id": "i", "event": "click", "timestamp": "2026-01-01T00:00:00Z"}
    assert world.http.post("/v1/events", json=event).status_code == 401
    assert world.http.post("/v1/events", json=event, headers=shop).status_code == 429


def test_events_are_durable_with_all_bentos_down(world):
    world.stub("alpha").kill()
    world.write()
    world.start()
    event = {"event_id": "e1", "user_id": "u", "item_id": "i", "event": "click", "timestamp": "2026-01-01T00:00:00Z"}
    assert world.http.post("/v1/events", json=[event]).json() == {"accepted": 1, "duplicates": 0}
    assert world.http.post("/v1/events", json=[event]).json() == {"accepted": 0, "duplicates": 1}
    assert world.recommend().status_code == 503  # no champion, no list: nothing can be served


def test_without_a_table_nothing_is_taken_and_readyz_says_why(world):
    world.start()
    answer = world.recommend()
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert world.http.post("/v1/events", json=[]).status_code == 503
    ready = world.http.get("/readyz")
    assert ready.status_code == 503
    assert "table" in str(ready.json()["components"]["table"])
    world.stub("alpha")
    world.write()
    wait_until(lambda: world.recommend().status_code == 200, 5, "the first table")


def test_a_testers_pass_forces_the_variant_and_is_no_evidence(two):
    def token(**fields) -> dict[str, str]:
        given = Pass(expires_us=fields.pop("expires_us", 2**60), **fields)
        return {"x-streamrec-pass": two.signer.token(given.model_dump_json())}

    for variant in ("candidate", "champion"):
        answer = two.recommend("tester", headers=token(variant=variant)).json()
        assert answer["variant"] == variant
    assert two.recommend("tester", headers=token(variant="candidate", expires_us=1)).status_code == 403
    assert two.recommend("tester", headers={"x-streamrec-pass": "a.b"}).status_code == 403
    attempts = settle(two.attempts, lambda a: len(a) == 2, "both attempts")
    assert all(a["forced"] for a in attempts)
    assert all(not dict(e["experiments"]) for e in two.exposures())


@pytest.mark.parametrize("mode", ["ok", "hang", "fail", "reset"])
def test_shadow_traffic_is_compared_and_never_felt(world, mode):
    world.stub("alpha")
    world.stub("beta").tell(mode=mode)
    world.write(release=canary(0, shadow=100))
    world.start(deadline_ms=500)
    has_popularity(world)
    with concurrent.futures.ThreadPoolExecutor(8) as pool, httpx.Client(base_url=world.url, timeout=10) as client:
        ask = lambda n: client.post("/v1/recommendations", json={"user_id": f"new{n}", "k": 5})  # noqa: E731
        answers = list(pool.map(ask, range(300)))
    assert {(a.status_code, a.json()["variant"], a.json()["bento"]) for a in answers} == {(200, "champion", "alpha")}
    assert max(a.elapsed.total_seconds() for a in answers) < 0.45  # a shadow that hangs takes 0.5 s
    ids = {a.json()["request_id"] for a in answers}
    shadows = settle(lambda: [a for a in world.attempts() if a["shadow"]], lambda a: len(a) >= 4, "mirrored attempts")
    assert {a["request_id"] for a in shadows} <= ids
    assert {a["variant"] for a in shadows} == {"candidate"}
    if mode == "ok":
        assert {a["outcome"] for a in shadows} == {"ok"}
        assert {(a["compared"]["overlap"], a["compared"]["common"]) for a in shadows} == {(0.0, 0)}
        assert {tuple(a["panel"]) for a in shadows} == {("new_user", "no_context")}
        assert set(world.stubs["beta"].seen) == {"s"}
    else:
        assert {a["outcome"] for a in shadows} == ({"late"} if mode == "hang" else {"error"})
        assert world.metric("streamrec_gateway_shadow_queue") <= 64
        assert len(world.stubs["beta"].seen) < 60
    assert len(world.exposures()) == 300
