"""What a consumer meets at the gateway, over real processes."""

import concurrent.futures
import itertools
import json
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from contracts.routing import Pass, Upstream
from tests.integration.gateway.conftest import TOKEN, Load, World, canary, consumer
from tests.serving_processes import wait_until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def has_popularity(world):
    wait_until(lambda: all(d["last_resort"]["popularity"] for d in world.all_ready().values()), 10, "a popularity list")


def settle(read, condition, why):
    """Records reach the disk some milliseconds after the answer."""
    return wait_until(lambda: (found := read()) and condition(found) and found, 10, why)


@pytest.fixture(scope="module")
def shared():
    """One gateway process for the tests that leave it as they found it."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        world = World(Path(folder))
        try:
            world.stub("alpha")
            world.write()
            world.start(deadline_ms=500)
            has_popularity(world)
            yield world
        finally:
            world.close()


@pytest.fixture
def two(shared):
    """Champion alpha, and a candidate of this test's own at 50 %: everyone is candidate or control."""
    number = next(NUMBERS)
    shared.candidate = shared.stub(f"beta{number}")
    shared.release = canary(50, id=f"r{number}", bento=f"beta{number}")
    apply(shared, release=shared.release)
    yield shared
    shared.stubs.pop(shared.candidate.name).kill()
    apply(shared)


NUMBERS = itertools.count(1)


def apply(world, **fields):
    """Write a table and wait until it holds."""
    name = world.write(**fields)
    wait_until(lambda: {d["table"]["name"] for d in world.all_ready().values()} == {name}, 5, f"table {name}")
    return name


def of(release, read):
    """Attempts of one release."""
    return lambda: [a for a in read() if a["release"] == release.id]


def test_a_slate_says_who_served_it_and_the_log_says_who_was_assigned(two):
    answers = [two.recommend(f"u{n}").json() for n in range(20)]
    name = two.candidate.name
    assert {(a["variant"], a["bento"]) for a in answers} == {("candidate", name), ("control", "alpha")}
    assert all(a["experiments"] == {two.release.id: a["variant"]} for a in answers)
    assert "versions" not in answers[0]
    assert "front" not in answers[0]
    ids = {a["request_id"] for a in answers}
    exposures = settle(two.exposures, lambda e: ids <= {x["request_id"] for x in e}, "20 exposures")
    logged = {e["request_id"]: e for e in exposures}
    for answer in answers:
        exposure = logged[answer["request_id"]]
        assert exposure["assigned"] == exposure["served"] == answer["variant"]
        assert exposure["probability"] == pytest.approx(0.5)
        assert exposure["item_ids"] == [i["item_id"] for i in answer["items"]]
        assert exposure["versions"]["bento"] == answer["bento"]
        assert exposure["versions"]["routing_table"] == two.ready()["table"]["name"]
        assert exposure["clock_us"] == 5  # the stub's
    attempts = settle(of(two.release, two.attempts), lambda a: len(a) == 20, "20 attempts")
    assert {a["outcome"] for a in attempts} == {"ok"}
    assert {a["request_id"] for a in attempts} == ids
    assert {tuple(a["panel"]) for a in attempts} == {("no_context",)}


def test_a_bento_hears_the_time_left_but_never_the_consumers_key(two):
    apply(two, release=two.release, consumers=(consumer("shop", "secret-1"),))
    assert two.recommend("u1").status_code == 401
    answer = two.recommend("u1", debug=True, headers={"authorization": "Bearer secret-1"}).json()
    assert answer["debug"]["authorization"] == ""
    assert 0 < float(answer["debug"]["deadline_ms"]) < 500 * 0.6
    assert answer["debug"]["gateway"]["assigned"] == answer["variant"]


def test_a_consumer_can_shorten_the_time_and_nothing_else(two):
    header = "x-streamrec-deadline-ms"
    answer = two.recommend("u1", debug=True, headers={header: "100"}).json()
    assert 0 < float(answer["debug"]["deadline_ms"]) < 100
    answer = two.recommend("u1", debug=True, headers={header: "60000"}).json()
    assert float(answer["debug"]["deadline_ms"]) < 500
    refused = two.recommend("u1", headers={header: "soon"})
    assert (refused.status_code, refused.json()["field"]) == (400, header)


def test_a_bento_hears_the_consumers_trace_and_no_nonsense_in_its_place(two):
    apply(two, release=two.release)
    for sent, heard in ((TRACE, TRACE), ("00-zz", ""), ("", "")):
        answer = two.recommend("u1", debug=True, headers={"traceparent": sent}).json()
        assert answer["debug"]["traceparent"] == heard


@pytest.mark.parametrize("mode", ["fail", "broken", "nan", "twice", "reset", "empty"])
def test_a_candidate_that_fails_every_request_costs_no_consumer_anything(two, mode):
    with Load(two.url, clients=3) as running:
        running.wait(60)
        two.candidate.tell(mode=mode)
        if mode != "empty":  # an empty slate is an answer: no breaker, but users get the champion's
            wait_until(lambda: two.ready()["breakers"][two.candidate.name] != "closed", 2, "the breaker open")
        seen = len(two.candidate.seen)
        running.wait(150)
    assert not running.failed
    if mode != "empty":
        assert len(two.candidate.seen) - seen < 10  # probes
    exposures = [e for e in two.exposures() if dict(e["experiments"]).get(two.release.id) == "candidate"]
    after = [e for e in exposures if e["served"] != "candidate"]
    assert {e["served"] for e in after} == {"champion"}
    assert all(e["item_ids"] for e in after)
    outcomes = {a["outcome"] for a in of(two.release, two.attempts)() if a["variant"] == "candidate"}
    assert outcomes == ({"ok"} if mode == "empty" else {"ok", "error", "open"})


def test_a_candidate_that_hangs_is_late_and_the_champion_answers_within_the_same_deadline(two):
    two.candidate.tell(mode="hang")
    apply(two, release=two.release.model_copy(update={"weight": 100}))
    began = time.perf_counter()
    answer = two.recommend("u1").json()
    took_ms = (time.perf_counter() - began) * 1000
    assert answer["variant"] == "champion"
    assert 250 < took_ms < 500
    attempts = settle(of(two.release, two.attempts), lambda a: len(a) == 2, "both attempts")
    assert sorted((a["variant"], a["outcome"], a["status"]) for a in attempts) == [
        ("candidate", "late", 0),
        ("champion", "ok", 200),
    ]


def test_consumers_in_a_hurry_do_not_take_a_bento_from_the_others(two):
    two.candidate.tell(mode="hang")
    apply(two, release=two.release.model_copy(update={"weight": 100}))
    for _ in range(10):
        assert two.recommend(headers={"x-streamrec-deadline-ms": "20"}).status_code == 200
    ready = two.ready()
    assert ready["breakers"][two.candidate.name] == "closed"
    assert not any(address["ejected"] for address in ready["upstreams"][two.candidate.name]["urls"].values())


def test_the_breaker_lets_a_candidate_back_in_that_has_recovered(two):
    two.candidate.tell(mode="fail")
    breaker = lambda: two.ready()["breakers"][two.candidate.name]  # noqa: E731
    with Load(two.url, clients=2) as running:
        wait_until(lambda: breaker() == "open", 5, "open")
        two.candidate.tell()
        wait_until(lambda: breaker() == "closed", 15, "closed again")
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


def test_a_champion_worker_that_hangs_is_ejected_and_the_other_one_answers(world, load):
    world.stub("alpha-1")
    world.stub("alpha-2")
    world.write()
    world.start(deadline_ms=300)
    has_popularity(world)
    with load(clients=3) as running:
        running.wait(30)
        world.stubs["alpha-1"].tell(mode="hang")
        wait_until(lambda: any(u["ejected"] for u in world.ready()["upstreams"]["alpha"]["urls"].values()), 10, "out")
        since = len(running.results)
        running.wait(300)
    assert not running.failed
    after = [variant for _, _, variant in running.results[since:]]
    assert after.count("fallback") < 30  # now and then one request tries whether it is back
    assert after.count("champion") > 250


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
        name = apply(world, release=canary(10))
        assert not any(d["table"]["problem"] for d in world.all_ready().values())


def test_tables_that_change_under_load_leave_no_request_behind(two):
    with Load(two.url) as running:
        for weight in (0, 50, 100, 25):
            two.write(release=two.release.model_copy(update={"weight": weight}))
            running.wait(40)
        apply(two, bentos={"alpha": Upstream(urls=(two.stubs["alpha"].url,))})
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
def test_bad_input_is_refused_at_the_gateway_and_never_reaches_a_bento(shared, content, status):
    seen = shared.stubs["alpha"].seen
    answer = shared.http.post("/v1/recommendations", content=content)
    assert answer.status_code == status
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["request_id"]
    assert shared.stubs["alpha"].seen == seen


def test_other_addresses_of_the_gateway(shared):
    assert shared.http.get("/livez").json() == {"status": "alive"}
    paths = shared.http.get("/v1/openapi.json").json()["paths"]
    assert {"/v1/recommendations", "/v1/events", "/readyz"} <= set(paths)
    assert shared.http.get("/v1/recommendations").status_code == 405
    assert shared.http.get("/v1/what").status_code == 404
    a_request = "/v1/requests/01890000-0000-7000-8000-000000000000"
    assert shared.http.get(a_request).status_code == 401
    assert shared.http.get(a_request, headers={"authorization": "Bearer no"}).status_code == 403
    assert shared.http.get(a_request, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 404
    assert shared.metric("streamrec_gateway_table_version") > 0


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
    assert ready.json()["components"]["table"]["detail"]
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
    attempts = settle(of(two.release, two.attempts), lambda a: len(a) == 2, "both attempts")
    assert all(a["forced"] for a in attempts)
    ids = {a["request_id"] for a in attempts}
    assert [dict(e["experiments"]) for e in two.exposures() if e["request_id"] in ids] == [{}, {}]


@pytest.mark.parametrize("mode", ["ok", "hang", "fail", "reset"])
def test_shadow_traffic_is_compared_and_never_felt(two, mode):
    two.candidate.tell(mode=mode)
    apply(two, release=two.release.model_copy(update={"weight": 0, "shadow": 100}))
    with concurrent.futures.ThreadPoolExecutor(8) as pool, httpx.Client(base_url=two.url, timeout=10) as client:
        ask = lambda n: client.post("/v1/recommendations", json={"user_id": f"new{n}", "k": 5})  # noqa: E731
        answers = list(pool.map(ask, range(300)))
    assert {(a.status_code, a.json()["variant"], a.json()["bento"]) for a in answers} == {(200, "champion", "alpha")}
    # A shadow that hangs takes 0.5 s: felt, most answers would. One may be late by the machine's own doing.
    assert sorted(a.elapsed.total_seconds() for a in answers)[len(answers) // 2] < 0.45
    ids = {a.json()["request_id"] for a in answers}
    mirrored = lambda: [a for a in of(two.release, two.attempts)() if a["shadow"]]  # noqa: E731
    shadows = settle(mirrored, lambda a: len(a) >= 4, "mirrored attempts")
    assert {a["request_id"] for a in shadows} <= ids
    assert {a["variant"] for a in shadows} == {"candidate"}
    if mode == "ok":
        assert {a["outcome"] for a in shadows} == {"ok"}
        assert {(a["compared"]["overlap"], a["compared"]["common"]) for a in shadows} == {(0.0, 0)}
        assert {tuple(a["panel"]) for a in shadows} == {("new_user", "no_context")}
        assert set(two.candidate.seen) == {"s"}
    else:
        assert {a["outcome"] for a in shadows} == ({"late"} if mode == "hang" else {"error"})
        assert two.metric("streamrec_gateway_shadow_queue") <= 64
        assert len(two.candidate.seen) < 60
    exposures = settle(two.exposures, lambda e: ids <= {x["request_id"] for x in e}, "the exposures")
    assert all(not dict(e["experiments"]) for e in exposures if e["request_id"] in ids)
