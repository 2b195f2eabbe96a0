import hashlib

import pytest

from bentos.gateway.limits import Limits
from bentos.recommender.http import HttpProblem
from contracts.routing import Consumer


def consumer(name: str, key: str, **more) -> Consumer:
    return Consumer(name=name, key_sha256=hashlib.sha256(key.encode()).hexdigest(), **more)


def limits(*consumers: Consumer, processes: int = 1) -> Limits:
    found = Limits()
    found.apply(consumers, processes)
    return found


def status_of(found: Limits, authorization: bytes | None, now: float = 0.0) -> int:
    try:
        found.admit(authorization, now)
    except HttpProblem as problem:
        return problem.status
    return 200


def test_without_consumers_no_key_is_asked_for():
    assert limits().admit(None, 0.0) == ""
    assert limits().admit(b"Bearer anything", 0.0) == ""


def test_a_key_is_asked_for_and_compared():
    found = limits(consumer("shop", "k-1"))
    assert found.admit(b"bearer k-1", 0.0) == "shop"
    assert status_of(found, None) == 401
    assert status_of(found, b"Basic abc") == 401
    assert status_of(found, b"Bearer k-2") == 403
    assert status_of(found, b"Bearer ") == 403


def test_a_burst_then_the_rate_and_retry_after_says_when():
    found = limits(consumer("shop", "k", rate_per_s=0.5, burst=2))
    assert [status_of(found, b"Bearer k") for _ in range(3)] == [200, 200, 429]
    with pytest.raises(HttpProblem) as problem:
        found.admit(b"Bearer k", 0.5)  # a quarter of a token is there: 1.5 s are missing
    assert dict(problem.value.headers)[b"retry-after"] == b"2"
    assert status_of(found, b"Bearer k", 2.0) == 200
    assert status_of(found, b"Bearer k", 2.0) == 429


def test_each_process_gives_its_share_of_the_rate():
    found = limits(consumer("shop", "k", rate_per_s=10, burst=8), processes=4)
    assert [status_of(found, b"Bearer k") for _ in range(3)] == [200, 200, 429]
    assert status_of(found, b"Bearer k", 0.39) == 429
    assert status_of(found, b"Bearer k", 0.41) == 200  # 2.5 a second


def test_a_clock_that_jumps_back_gives_no_tokens_and_takes_none():
    found = limits(consumer("shop", "k", rate_per_s=1, burst=1))
    assert status_of(found, b"Bearer k", 100.0) == 200
    assert status_of(found, b"Bearer k", 0.0) == 429
    assert status_of(found, b"Bearer k", 1.0) == 200


def test_a_new_table_keeps_what_is_left_and_forgets_who_is_gone():
    found = limits(consumer("shop", "k", rate_per_s=1, burst=1), consumer("old", "o", rate_per_s=1))
    assert status_of(found, b"Bearer k") == 200
    assert status_of(found, b"Bearer o") == 200
    found.apply([consumer("shop", "k", rate_per_s=1, burst=1)], 1)
    assert status_of(found, b"Bearer k") == 429
    assert status_of(found, b"Bearer o") == 403
    assert list(found._buckets) == ["shop"]
