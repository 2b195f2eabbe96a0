import asyncio
import contextlib
import math
import time

import numpy as np
from bentoml.exceptions import ServiceUnavailable

from bentos.recommender.breaker import dependency
from bentos.recommender.types import Query, SourceResult, User
from bentos.recommender.wire import (
    RemoteRetrieval,
    RemoteScorer,
    pack,
    pack_results,
    pack_rows,
    score_together,
    unpack,
    unpack_results,
)
from contracts.budgets import Budgets
from features.online.base import UserState

QUERY = Query("r1", "u1", 5, 1_000, time.perf_counter() + 60, {"country": "DE"}, np.array([3], np.int32))
USER = User(
    row=4,
    state=UserState("u1"),
    history=np.array([1, 2], np.int32),
    history_age_h=np.array([0.5, 2.0], np.float32),
    seen=np.array([1, 2, 9], np.int32),
)
ROWS = np.ones((3, 2), np.float32)
LIMITS = Budgets().plan(time.perf_counter(), QUERY.deadline)


def soon(seconds=10.0):
    return time.perf_counter() + seconds


class Client:
    """BentoML's async client as this package uses it."""

    def __init__(self, answer):
        self.answer = answer
        self.calls = []

    async def call(self, method, *arguments):
        self.calls.append(method)
        answer = self.answer(method, *arguments) if callable(self.answer) else self.answer
        if isinstance(answer, Exception):
            raise answer
        return answer


class Frozen(Client):
    """Says that it is there, and does nothing."""

    async def call(self, method, *arguments):
        return {"pid": 1} if method == "status" else await asyncio.sleep(60)


def up(runner):
    asyncio.run(runner.ask_status())
    return runner


def test_what_a_source_reads_survives_the_trip():
    sources, query, user, limits = unpack(pack(("graph", "content"), QUERY, USER, LIMITS))
    assert limits == LIMITS
    assert sources == ("graph", "content")
    for name in ("request_id", "user_id", "k", "now_us", "deadline", "context"):
        assert getattr(query, name) == getattr(QUERY, name)
    np.testing.assert_array_equal(query.exclude, QUERY.exclude)
    for name in ("history", "history_age_h", "seen"):
        np.testing.assert_array_equal(getattr(user, name), getattr(USER, name))
    assert user.row == USER.row


def test_results_and_reasons_survive_the_trip():
    vector = np.ones(128, np.float32)
    results = {"two_tower": SourceResult(np.array([1], np.int32), np.array([0.5], np.float32), vector), "graph": "late"}
    back = unpack_results(pack_results(results))
    assert back["graph"] == "late"
    np.testing.assert_array_equal(back["two_tower"].items, [1])
    np.testing.assert_array_equal(back["two_tower"].vector, vector)


def test_a_runner_that_was_never_reached_answers_with_a_reason_and_is_not_called():
    client = Client([np.ones(3)])
    assert isinstance(asyncio.run(RemoteScorer("Ranking", client).score(ROWS, soon())), str)
    assert client.calls == []


def test_a_failure_becomes_a_reason_until_the_status_is_back():
    broken = [False]

    def answer(method, *_):
        if broken[0]:
            return ConnectionResetError("gone")
        return {"problems": {}} if method == "status" else [np.full(3, 0.5)]

    client = Client(answer)
    runner = up(RemoteScorer("Ranking", client))
    np.testing.assert_array_equal(asyncio.run(runner.score(ROWS, soon())), [0.5] * 3)
    broken[0] = True
    assert "ConnectionResetError" in asyncio.run(runner.score(ROWS, soon()))
    broken[0] = False
    calls = len(client.calls)
    assert isinstance(asyncio.run(runner.score(ROWS, soon())), str)
    assert len(client.calls) == calls  # not even tried: nobody waits on a socket without a process
    np.testing.assert_array_equal(asyncio.run(up(runner).score(ROWS, soon())), [0.5] * 3)


def test_a_late_answer_is_a_reason():
    assert "in time" in asyncio.run(up(RemoteScorer("Ranking", Frozen(None))).score(ROWS, soon(0.01)))


def test_nan_and_wrong_shapes_are_reasons_and_do_not_mark_the_runner_as_away():
    for answer in ([np.array([0.1, np.nan, 0.2])], [np.ones(2)]):
        runner = up(RemoteScorer("Ranking", Client(lambda m, *_, a=answer: {} if m == "status" else a)))
        assert isinstance(asyncio.run(runner.score(ROWS, soon())), str)
        assert runner.problem == ""


def test_every_source_gets_the_reason_when_retrieval_is_away():
    runner = RemoteRetrieval("Retrieval", Client(OSError("no")))
    answer = asyncio.run(runner.retrieve(("graph", "content"), QUERY, USER, LIMITS))
    assert set(answer) == {"graph", "content"}
    assert all(isinstance(reason, str) for reason in answer.values())


def test_a_call_whose_process_was_killed_is_tried_once_more():
    lost = [ConnectionResetError("killed")]

    def answer(method, *_):
        return {"pid": 1} if method == "status" else (lost.pop() if lost else [np.full(3, 0.5)])

    client = Client(answer)
    runner = up(RemoteScorer("Ranking", client))
    np.testing.assert_array_equal(asyncio.run(runner.score(ROWS, soon())), [0.5] * 3)
    assert client.calls == ["status", "score", "score"]
    assert runner.counts["tried_again"] == 1


def test_it_is_not_tried_again_when_there_is_no_time_left():
    def answer(method, *_):
        time.sleep(0.003)  # the loop is held, as by a process that dies slowly
        return {"pid": 1} if method == "status" else ConnectionResetError("killed")

    client = Client(answer)
    runner = up(RemoteScorer("Ranking", client))
    assert "ConnectionResetError" in asyncio.run(runner.score(ROWS, soon(0.002)))
    assert client.calls == ["status", "score"]


def test_a_late_or_wrong_answer_does_not_mark_the_process_as_away_but_five_stop_the_asking():
    client = Client(lambda method, *_: {"pid": 1} if method == "status" else [np.full(3, np.nan)])
    runner = up(RemoteScorer("Ranking", client, dependency(open_s=3600.0)))
    for _ in range(5):
        assert "has no model" in asyncio.run(runner.score(ROWS, soon()))
    assert runner.problem == ""
    calls = len(client.calls)
    assert "left alone" in asyncio.run(runner.score(ROWS, soon()))
    assert len(client.calls) == calls
    assert "left alone" in asyncio.run(up(runner).score(ROWS, soon()))  # the same process, whatever its status says
    client.answer = lambda method, *_: {"pid": 2} if method == "status" else [np.full(3, 0.5)]
    np.testing.assert_array_equal(asyncio.run(up(runner).score(ROWS, soon())), [0.5] * 3)  # another process


def test_consumers_in_a_hurry_do_not_shut_a_runner_to_the_others_and_late_answers_to_those_who_waited_do():
    runner = up(RemoteScorer("Ranking", Frozen(None), dependency(open_s=3600.0), budget_s=0.03))
    for _ in range(10):
        assert "in time" in asyncio.run(runner.score(ROWS, soon(0.005)))
    assert (runner.breaker.state, runner.counts) == ("closed", {"hurried": 10})
    for _ in range(5):
        assert "in time" in asyncio.run(runner.score(ROWS, soon(0.06)))
    assert "left alone" in asyncio.run(runner.score(ROWS, soon()))


def test_an_error_of_a_process_that_answers_is_no_reason_to_take_it_for_dead():
    client = Client(lambda method, *_: {"pid": 1} if method == "status" else ServiceUnavailable("overloaded"))
    runner = up(RemoteScorer("Ranking", client))
    assert "ServiceUnavailable" in asyncio.run(runner.score(ROWS, soon()))
    assert (runner.problem, client.calls) == ("", ["status", "score"])


def test_rows_that_nobody_waits_for_are_not_scored():
    scored = []

    def score(rows):
        scored.append(len(rows))
        return rows[:, 0]

    batch = [one for n, until in ((1, soon()), (2, 0.0), (3, math.inf)) for one in pack_rows(n * ROWS, until)]
    first, gone, last = score_together(score, batch)
    assert (first.tolist(), last.tolist(), scored) == ([1.0] * 3, [3.0] * 3, [6])
    assert (gone.shape, np.isnan(gone).all()) == ((3,), True)
    (alone,) = score_together(score, pack_rows(ROWS, 0.0))
    assert (np.isnan(alone).all(), scored) == (True, [6])


def test_a_caller_that_leaves_says_nothing_of_the_runner():
    runner = up(RemoteScorer("Ranking", Frozen(None)))

    async def leave():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await runner.score(ROWS, soon())

    for _ in range(10):
        asyncio.run(leave())
    assert runner.breaker.state == "closed"
