"""A served Bento whose real parts are stopped, slowed down, damaged and killed: each answer is a 200 with its rung."""

import collections
import concurrent.futures
import contextlib
import datetime
import itertools
import json
import os
import shutil
import socket

import httpx
import psutil
import pytest
import redis

from bentos.telemetry.exposures import read_exposures
from tests.redis_server import RedisServer
from tests.serving_processes import running, wait_until
from tests.slow_proxy import SlowProxy

SERVE = ["-m", "cli", "serve", "--port", "0", "--json", "--drain-s", "0"]
# A breaker asks again soon, and a busy machine is not taken for an overload.
SOON = {"STREAMREC_BREAKER_OPEN_S": "0.5", "STREAMREC_PATIENCE_MS": "10000"}


def rung(served, user="u1", **body):
    answer = served.recommend(user_id=user, k=5, **body)
    assert len(answer["items"]) == 5
    return answer["degradation"]


def until(served, wanted, timeout_s=30.0):
    def there():
        with contextlib.suppress(AssertionError):  # the machine may be too busy for a while: 429
            return rung(served) == wanted

    wait_until(there, timeout_s, f"rung {wanted}")


def reads_by(served):
    return {how: served.counted(f'store_reads_total{{how="{how}"}}') for how in ("read", "refused")}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on the PATH: the ladder over Redis is NOT tested")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def proxy(store):
    with SlowProxy(store.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def served(world, proxy, tmp_path_factory):
    url = f"redis://127.0.0.1:{proxy.port}/0"
    home = tmp_path_factory.mktemp("home")
    env = {**SOON, "STREAMREC_ONLINE_STORE": url, "STREAMREC_FEATURES_BUDGET_MS": "300"}
    with running(SERVE, home, world, **env) as served:
        yield served


@pytest.mark.redis
def test_redis_stopped_is_stale_features_and_started_again_is_full(served, store):
    until(served, "full")
    store.stop()
    assert [rung(served, f"v{n}") for n in range(8)] == ["stale_features"] * 8  # of users not read a moment ago
    ready = served.ready()
    assert (ready["breakers"]["online_store"], ready["best"]) == ("open", "stale_features")
    store.start()
    until(served, "full")
    wait_until(lambda: served.ready()["breakers"]["online_store"] == "closed" or rung(served), 10, "the breaker")


@pytest.mark.redis
def test_a_redis_that_is_two_seconds_late_holds_nobody_up(served, proxy):
    """By count: a few reads are waited for, until the breaker opens; the others are not even sent."""
    fresh = itertools.count()  # users whose state is not kept from a moment ago: each is a read, and so a probe
    wait_until(
        lambda: rung(served, f"p{next(fresh)}") == "full" and served.ready()["breakers"]["online_store"] == "closed",
        30,
        "a closed breaker",
    )
    before = reads_by(served)
    proxy.delay_s = 2.0
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            rungs = collections.Counter(pool.map(lambda n: rung(served, f"w{n}"), range(200)))
        assert rungs == {"stale_features": 200}
        reads, refused = (reads_by(served)[how] - before[how] for how in ("read", "refused"))
        assert 5 <= reads < 100  # it takes some to open the breaker, and its probes ask again
        assert refused >= 100
        asked = proxy.asked
        debug = served.recommend(user_id="u1", k=5, debug=True)["debug"]
        assert any("online store" in note for note in debug["notes"])
        assert proxy.asked - asked <= 3
    finally:
        proxy.delay_s = 0.0
    until(served, "full")


@pytest.mark.redis
def test_a_store_full_of_garbage_is_no_error(served, store):
    until(served, "full")
    garbage = os.urandom(300)
    with redis.Redis.from_url(store.url) as client:
        for n in range(20):
            client.hset(f"sr:user:u{n}", mapping={"user_category_preferences": garbage, garbage: garbage})
            client.zadd(f"sr:last:u{n}", {garbage: 1.0, b"\0\0\0": 2.0})
            client.hset("sr:lists", f"u{n}", garbage)
        client.set("sr:watermark", garbage)
        client.hset("sr:items", mapping={"version": garbage, "snapshot": garbage})
        client.set("sr:user:u30", b"another type of key")
    assert {rung(served, f"u{n}") for n in range(20)} <= {"full", "stale_features"}
    assert rung(served, "u30") == "stale_features"
    with redis.Redis.from_url(store.url) as client:
        client.flushall()
    until(served, "full")


@pytest.mark.slow
def test_a_ranker_file_that_is_missing_costs_the_rung_until_it_is_there_again(world, tmp_path):
    shutil.copytree(world, tmp_path / "world")
    (tmp_path / "world" / "ranking" / "dcn.onnx").unlink()
    with running(SERVE, tmp_path / "home", tmp_path / "world") as served:
        assert rung(served) == "simple_ranking"
        shutil.copy2(world / "ranking" / "dcn.onnx", tmp_path / "world" / "ranking" / "dcn.onnx")
        until(served, "full")
        assert served.ready()["best"] == "full"


@pytest.mark.slow
def test_a_mapped_file_that_is_cut_short_costs_its_rung_and_not_the_service(world, tmp_path):
    """What is mapped beyond its end is a bus error: the process dies of it, and the next one does without."""
    shutil.copytree(world, tmp_path / "world")
    path = tmp_path / "world" / "retrieval" / "item_embeddings.npy"
    with running(SERVE, tmp_path / "home", tmp_path / "world") as served:
        until(served, "full")
        os.truncate(path, 4096)

        def lower():
            with contextlib.suppress(httpx.TransportError, AssertionError):  # of the process that dies
                return rung(served) == "popularity"

        wait_until(lower, 60, "answers without the file")
        assert "item_embeddings.npy" in served.ready()["components"]["retrieval"]["detail"]
        shutil.copy2(world / "retrieval" / "item_embeddings.npy", path)
        until(served, "full")


def limit_files(pid, size=None):
    """Writes past `size` bytes of any file fail from now on, as on a full disk; None: no more."""
    process = psutil.Process(pid)
    hard = process.rlimit(psutil.RLIMIT_FSIZE)[1]
    process.rlimit(psutil.RLIMIT_FSIZE, (hard if size is None else size, hard))


@pytest.mark.redis
def test_a_disk_with_no_room_for_the_log_costs_no_answer_and_nothing_that_waited(served):
    until(served, "full")
    worker = served.document["processes"]["worker 1"]
    state = lambda: served.ready()["components"]["exposures"]["state"]  # noqa: E731
    limit_files(worker, 1)
    try:
        ids = [served.recommend(user_id=f"d{n}", k=5)["request_id"] for n in range(10)]
        wait_until(lambda: state() == "degraded", 20, "the log's trouble")
        assert rung(served, "d11") == "full"
    finally:
        limit_files(worker)
    wait_until(lambda: state() == "healthy", 30, "the log's recovery")
    wait_until(lambda: set(ids) <= set(read_exposures(served.home)["request_id"].to_pylist()), 20, "what waited")


@pytest.mark.redis
def test_an_event_log_with_no_room_is_left_alone_and_stores_again_by_itself(served):
    def send(n):
        now = datetime.datetime.now(datetime.UTC).isoformat()
        event = {"event_id": f"full-{n}", "user_id": "d1", "item_id": "i1", "event": "click", "timestamp": now}
        return served.http.post("/v1/events", json=[event]).status_code

    assert send("before") == 202
    consumer = int((served.home / "run" / "events.lock").read_text())
    limit_files(consumer, 1)
    try:
        assert [send(n) for n in range(7)] == [503] * 7
        assert served.ready()["breakers"]["events"] in ("open", "half_open")
        assert rung(served, "d12") == "full"
    finally:
        limit_files(consumer)
    wait_until(lambda: send("after") == 202, 20, "an event that is stored")
    wait_until(lambda: send("again") == 202 and served.ready()["breakers"]["events"] == "closed", 20, "the breaker")


@pytest.mark.redis
def test_a_frozen_event_log_takes_no_recommendation_down(served):
    until(served, "full")
    now = datetime.datetime.now(datetime.UTC).isoformat()
    event = {"user_id": "f1", "item_id": "i1", "event": "click", "timestamp": now}
    port, refused = int(served.url.rpartition(":")[2]), 'requests_total{route="/v1/events",status="429"}'
    consumer = psutil.Process(int((served.home / "run" / "events.lock").read_text()))
    consumer.suspend()
    try:
        with contextlib.ExitStack() as clients:
            waiting = [clients.enter_context(socket.create_connection(("127.0.0.1", port), 60)) for _ in range(600)]
            for n, client in enumerate(waiting):
                body = json.dumps([{**event, "event_id": f"frozen-{n}"}]).encode()
                client.sendall(
                    b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                )
            wait_until(lambda: served.counted(refused) >= 600 - 512, 60, "as many in flight as may be")
            assert rung(served) == "full"
            consumer.resume()
            statuses = collections.Counter(int(client.recv(65536).split()[1]) for client in waiting)
    finally:
        consumer.resume()
    assert set(statuses) <= {202, 429, 503}  # on a busy machine the time of some is up before the consumer goes on
    assert statuses[429] >= 88


@pytest.mark.redis
def test_nothing_is_answered_to_a_client_that_has_left(served):
    until(served, "full")
    gone = 'requests_total{route="/v1/recommendations",status="499"}'
    before = served.counted(gone)
    body = b'{"user_id": "u1", "k": 20}'
    request = b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    port = int(served.url.rpartition(":")[2])

    def leave():
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(request)
        return served.counted(gone) > before

    wait_until(leave, 30, "a request that was given up")
    assert rung(served) == "full"
