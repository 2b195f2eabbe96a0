"""The generator against a server of known delays. Only lower bounds are asserted: a busy machine adds to them."""

import json
from contextlib import closing

import numpy as np
import pytest

from benchmarks.load.bodies import request
from benchmarks.load.closed_loop import closed_loop
from benchmarks.load.connections import Connections
from benchmarks.load.open_loop import drive, moments, open_loop, percentiles
from tests.unit.benchmarks.stub import Stub


def load(stub, planned, *, limit=64, timeout_s=5.0, items=2):
    with stub.running(), closing(Connections("127.0.0.1", stub.port, limit=limit, timeout_s=timeout_s)) as connections:
        return drive(connections, np.asarray(planned), lambda n: request(n, 100), items=items, drain_s=timeout_s)


def test_constant_arrivals_are_evenly_spaced_and_poisson_ones_have_the_rate_and_no_rhythm():
    assert moments(100, 0.05, "constant", 1).tolist() == pytest.approx([0.0, 0.01, 0.02, 0.03, 0.04])
    drawn = moments(1000, 20, "poisson", 3)
    gaps = np.diff(drawn)
    assert len(drawn) == pytest.approx(20_000, rel=0.03)  # 4 standard deviations
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # of an exponential the two are equal
    assert drawn[-1] < 20
    assert (moments(1000, 20, "poisson", 3) == drawn).all()


def test_a_stall_is_charged_to_every_request_that_should_have_been_asked_in_it():
    """One connection, and the first answer takes 0.4 s. A generator that waits for it would see one slow request."""
    planned = np.arange(40) / 100
    found = load(Stub(lambda n: 0.4 if n == 0 else 0.0), planned, limit=1)
    assert found.ok == 40
    assert (np.sort(found.latencies_s)[::-1] >= np.sort(0.4 - planned)[::-1] - 1e-3).all()
    assert np.mean(found.latencies_s) > 0.19


def test_a_connection_that_has_its_answer_is_used_again():
    """A new one for each request would charge the server, and its queue of connections, to every latency."""
    stub = Stub(lambda n: 0.0)
    assert load(stub, np.arange(20) / 100, limit=1).ok == 20
    assert stub.connections == 1


def test_slow_answers_do_not_hold_back_the_next_requests():
    found = load(Stub(lambda n: 0.2), np.arange(50) / 1000)
    assert found.ok == 50
    assert min(found.latencies_s) >= 0.2
    assert found.seconds < 50 * 0.2 / 2  # one after another would take 10 s


def test_what_is_not_a_whole_answer_is_an_error_of_its_kind():
    found = load(
        Stub(lambda n: None if n == 1 else 0.0, status=lambda n: 429 if n == 2 else 200), [0.0, 0.05, 0.1, 0.15]
    )
    assert found.statuses == {200: 2, 0: 1, 429: 1}
    assert found.rungs == {"full": 2}
    assert found.document()["errors"] == 2

    short = load(Stub(lambda n: 0.0), [0.0, 0.01], items=3)
    assert short.ok == 0
    assert short.short == 2


def test_an_answer_that_does_not_come_ends_at_the_time_limit():
    found = load(Stub(lambda n: 30.0), [0.0, 0.01], timeout_s=0.3)
    assert found.statuses[200] == 0
    assert found.document()["errors"] == 2


def test_requests_without_a_connection_wait_and_are_counted_as_never_sent_at_the_end():
    found = load(Stub(lambda n: 30.0), [0.0, 0.01, 0.02], limit=1, timeout_s=0.2)
    assert found.never_sent >= 1
    assert found.document()["errors"] == 3


def test_a_closed_port_is_an_error_and_not_a_hang():
    with closing(Connections("127.0.0.1", 1, limit=4, timeout_s=0.5)) as connections:
        found = drive(connections, np.array([0.0, 0.01]), lambda n: request(n, 100), drain_s=0.5)
    assert found.ok == 0


def test_percentiles_are_numpy_s_and_none_of_nothing():
    assert percentiles(np.arange(101.0))["p99"] == 99.0
    assert percentiles(np.empty(0))["p50"] is None


def test_both_generators_run_as_processes_and_ask_the_same_users():
    stub = Stub(lambda n: 0.0)
    with stub.running():
        url = f"http://127.0.0.1:{stub.port}"
        document, latencies = open_loop(url, rate=200, seconds=0.5, users=50, items=2, arrivals="constant")
        closed = closed_loop(url, clients=2, seconds=1, users=50)
    assert document["ok"] == 100
    assert len(latencies) == 100
    assert document["lateness_ms"]["p50"] >= 0
    assert closed["failed"] == 0
    assert closed["requests"] > 10
    users = {json.loads(body)["user_id"] for body in stub.asked}
    assert users == {f"u{n}" for n in range(50)}
    assert {json.loads(body)["k"] for body in stub.asked} == {20}


def test_without_wrk_our_own_generator_drives_the_closed_loop(monkeypatch):
    monkeypatch.setattr("benchmarks.load.closed_loop.generator", lambda: "own")
    with Stub(lambda n: 0.0).running() as stub:
        found = closed_loop(f"http://127.0.0.1:{stub.port}", clients=3, seconds=0.5, users=50)
    assert found["requests"] > 10
    assert found["failed"] == 0
    assert found["p50_ms"] > 0
