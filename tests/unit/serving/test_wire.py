import asyncio
import time

import numpy as np

from bentos.recommender.types import Query, SourceResult, User
from bentos.recommender.wire import RemoteRetrieval, RemoteScorer, pack, pack_results, unpack, unpack_results
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


def up(runner):
    asyncio.run(runner.ask_status())
    return runner


def test_what_a_source_reads_survives_the_trip():
    sources, query, user = unpack(pack(("graph", "content"), QUERY, USER))
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
    client = Client(np.ones(3))
    assert isinstance(asyncio.run(RemoteScorer("Ranking", client, 1.0).score(ROWS)), str)
    assert client.calls == []


def test_a_failure_becomes_a_reason_until_the_status_is_back():
    broken = [False]

    def answer(method, *_):
        if broken[0]:
            return ConnectionResetError("gone")
        return {"problems": {}} if method == "status" else np.full(3, 0.5)

    client = Client(answer)
    runner = up(RemoteScorer("Ranking", client, 1.0))
    np.testing.assert_array_equal(asyncio.run(runner.score(ROWS)), [0.5] * 3)
    broken[0] = True
    assert "ConnectionResetError" in asyncio.run(runner.score(ROWS))
    broken[0] = False
    calls = len(client.calls)
    assert isinstance(asyncio.run(runner.score(ROWS)), str)
    assert len(client.calls) == calls  # not even tried: nobody waits on a socket without a process
    np.testing.assert_array_equal(asyncio.run(up(runner).score(ROWS)), [0.5] * 3)


def test_a_late_answer_is_a_reason():
    class Late(Client):
        async def call(self, method, *arguments):
            return {} if method == "status" else await asyncio.sleep(60)

    assert "in time" in asyncio.run(up(RemoteScorer("Ranking", Late(None), 0.01)).score(ROWS))


def test_nan_and_wrong_shapes_are_reasons_and_do_not_mark_the_runner_as_away():
    for answer in (np.array([0.1, np.nan, 0.2]), np.ones(2)):
        runner = up(RemoteScorer("Ranking", Client(lambda m, *_, a=answer: {} if m == "status" else a), 1.0))
        assert isinstance(asyncio.run(runner.score(ROWS)), str)
        assert runner.problem == ""


def test_every_source_gets_the_reason_when_retrieval_is_away():
    runner = RemoteRetrieval("Retrieval", Client(OSError("no")), 1.0)
    answer = asyncio.run(runner.retrieve(("graph", "content"), QUERY, USER))
    assert set(answer) == {"graph", "content"}
    assert all(isinstance(reason, str) for reason in answer.values())
