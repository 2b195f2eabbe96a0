"""The same bundles in one process and in four: the same slates; and what the four do when one is killed."""

import asyncio
import collections
import concurrent.futures
import contextlib
import json
import math
import os
import re
import shutil
import signal
import threading
import time
from functools import partial

import httpx
import numpy as np
import psutil
import pytest
from _bentoml_impl.client import RemoteProxy

from bentos.recommender.service import Ranking
from bentos.recommender.wire import RemoteScorer, pack_rows
from contracts.serving import DEGRADATIONS
from contracts.settings import Settings
from registry.artifacts import open_bundle
from tests.ranking_bundles import trees_in_its_place
from tests.serving_processes import alive, answers, free_port, running, wait_until

SERVE = ["-m", "cli", "serve", "--port", "0", "--json", "--drain-s", "0"]


@pytest.fixture(scope="module")
def distributed(world, tmp_path_factory):
    patience = {"STREAMREC_PATIENCE_MS": "10000"}  # a busy machine is not taken for an overload
    home = tmp_path_factory.mktemp("distributed")
    with running([*SERVE, "--topology", "distributed"], home, world, **patience) as served:
        yield served


@pytest.fixture(scope="module")
def colocated(world, tmp_path_factory):
    with running(SERVE, tmp_path_factory.mktemp("colocated"), world) as served:
        yield served


def test_two_hundred_users_get_the_same_slates_from_both(distributed, colocated):
    def slate(served, user):
        answer = served.recommend(user_id=f"u{user}", k=20, context={"country": "DE"})
        return answer["degradation"], [(i["item_id"], round(i["score"], 4)) for i in answer["items"]]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        ours = list(pool.map(lambda user: slate(colocated, user), range(200)))
        theirs = list(pool.map(lambda user: slate(distributed, user), range(200)))
    assert {degradation for degradation, _ in ours} == {"full"}
    assert ours == theirs


def test_a_ranking_process_with_trees_gives_the_slates_of_one_process(world, tmp_path):
    folder = tmp_path / "world"
    shutil.copytree(world, folder)
    trees_in_its_place(folder / "ranking")
    given = {}
    for topology in ("colocated", "distributed"):
        command = [*SERVE, "--topology", topology]
        with running(command, tmp_path / topology, folder, STREAMREC_PATIENCE_MS="10000") as served:
            answers = [served.recommend(user_id=f"u{user}", k=20, context={"country": "DE"}) for user in range(20)]
        assert {(answer["degradation"], answer["ranked_by"]) for answer in answers} == {("full", "trees")}
        given[topology] = [[(i["item_id"], round(i["score"], 4)) for i in answer["items"]] for answer in answers]
    assert given["colocated"] == given["distributed"]


def test_the_runners_are_processes_of_their_own_on_unix_sockets_only(distributed):
    processes = distributed.document["processes"]
    assert set(processes) == {"worker 1", "Retrieval", "Ranking", "Fallback"}
    listening = {
        name: [c for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        for name, pid in processes.items()
    }
    assert [name for name, sockets in listening.items() if sockets] == ["worker 1"]


def ranking_client(served):
    """The Ranking process, as the entry calls it; inside a loop."""
    entry = psutil.Process(served.document["processes"]["worker 1"]).cmdline()
    socket_of = json.loads(entry[entry.index("--runners") + 1])
    Ranking.inject_config()
    return RemoteProxy(socket_of["Ranking"], service=Ranking).to_async


def columns(world) -> int:
    return len(open_bundle(world / "ranking", "ranking").json("schema.json")["columns"])


def test_concurrent_requests_are_ranked_in_one_batch_and_score_as_they_do_alone(distributed, world):
    rng = np.random.default_rng(3)
    requests = [rng.random((50, columns(world)), dtype=np.float32) for _ in range(32)]

    async def rank():
        client = ranking_client(distributed)
        first = await client.call("status")
        alone = [await client.call("score", pack_rows(rows, math.inf)) for rows in requests]
        second = await client.call("status")
        together = await asyncio.gather(*(client.call("score", pack_rows(rows, math.inf)) for rows in requests))
        third = await client.call("status")
        await client.close()
        return alone, together, (first, second, third)

    alone, together, (first, second, third) = asyncio.run(rank())
    assert second["batches"] - first["batches"] == 32
    assert third["rows"] - second["rows"] == 32 * 50
    assert third["batches"] - second["batches"] < 32
    np.testing.assert_allclose(np.stack(together), np.stack(alone), atol=1e-6)


def test_a_ranking_process_that_was_held_up_ranks_nothing_for_callers_who_have_gone(distributed, world):
    rows, ranking = np.zeros((50, columns(world)), np.float32), process_of(distributed, "Ranking")

    async def ask():
        client = ranking_client(distributed)
        runner = RemoteScorer("Ranking", client)
        await runner.ask_status()
        before = runner.status["rows"]
        os.kill(ranking, signal.SIGSTOP)
        try:
            late = await asyncio.gather(*(runner.score(rows, time.perf_counter() + 0.2) for _ in range(20)))
        finally:
            os.kill(ranking, signal.SIGCONT)
        await client.call("score", pack_rows(rows[:7], math.inf))  # behind all others
        await runner.ask_status()
        await client.close()
        return set(late), runner.status["rows"] - before

    assert asyncio.run(ask()) == ({"the Ranking process did not answer in time"}, 7)


def test_under_load_requests_are_ranked_in_batches_and_all_are_answered(distributed):
    """What a GPU would be given: fewer calls of the ranker than requests, and no request lost in a batch."""

    def ranked():
        return tuple(distributed.counted(f'ranking_process{{count="{c}"}}') for c in ("batches", "rows"))

    async def load():
        async with httpx.AsyncClient(base_url=distributed.url, timeout=60) as client:
            asked = [client.post("/v1/recommendations", json={"user_id": f"u{i % 250}", "k": 10}) for i in range(200)]
            return [answer.json() for answer in await asyncio.gather(*asked)]

    batches, rows = ranked()
    answers = asyncio.run(load())
    by_dcn = [answer for answer in answers if answer["ranked_by"] == "dcn"]
    assert all(len(answer["items"]) == 10 for answer in answers)
    assert len(by_dcn) > 10  # the others came to a lower rung: two hundred at once are overload
    wait_until(lambda: ranked()[1] >= rows + 10 * len(by_dcn), why="the counts of the Ranking process")
    assert 0 < ranked()[0] - batches < len(by_dcn)


AGAIN = 'runner_calls_total{how="tried_again",runner="Ranking"}'


def full_again(seen, since) -> bool:
    rungs = [rung for _, rung, at in seen if at > since]
    return len(rungs) > 100 and rungs[-20:] == ["full"] * 20


def process_of(served, name) -> int | None:
    """The pid of a runner, which is another after each start; None while there is none."""
    children = psutil.Process(served.process.pid).children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.Error):  # one that has ended meanwhile
            if "--service" in (words := child.cmdline()) and name in words:
                return child.pid
    return None


@contextlib.contextmanager
def load(served, clients=4):
    """(status, rung, when) of each answer, as they come. Each client asks again as soon as it is answered."""
    seen, stop = [], threading.Event()

    def ask(client_number):
        with served.http as client:
            n = 0
            while not stop.is_set():
                n += 1
                body = {"user_id": f"u{(17 * client_number + n) % 250}", "k": 10}
                response = client.post("/v1/recommendations", json=body)
                seen.append((response.status_code, response.json().get("degradation"), time.monotonic()))

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask, n) for n in range(clients)]
        try:
            wait_until(lambda: len(seen) > 100, 60, why="load")
            yield seen
        finally:
            stop.set()
        for client in asking:
            client.result(30)


def test_a_ranking_process_killed_under_load_loses_no_request(distributed):
    """Each answer is a 200, and none is below `simple_ranking`; then it is `full` again."""
    assert distributed.recommend(user_id="u1")["ranked_by"] == "dcn"
    assert distributed.ready()["components"]["ranking"]["state"] == "healthy"
    with load(distributed) as seen:
        killed = time.monotonic()
        for _ in range(5):  # until one has cut a call off
            os.kill(process_of(distributed, "Ranking"), signal.SIGKILL)
            began = time.monotonic()
            # Calls under way may be ranked by the new process, on their second try; the others need not wait.
            wait_until(partial(full_again, seen, began), 90, "the ranker's return")
            if distributed.counted(AGAIN):
                break
    after = collections.Counter((status, degradation) for status, degradation, at in seen if at > killed)
    assert set(after) <= {(200, "full"), (200, "simple_ranking")}, after
    assert {status for status, _, _ in seen} == {200}  # and nobody was sent away with a 429
    assert distributed.counted(AGAIN) >= 1


def test_within_the_deadline_of_150_ms_a_killed_ranking_process_costs_rungs_and_no_request(world, tmp_path):
    usual = Settings()
    times = ("deadline_ms", "patience_ms", "features_budget_ms", "retrieval_budget_ms", "ranking_budget_ms")
    defaults = {f"STREAMREC_{name.upper()}": str(getattr(usual, name)) for name in times}
    with running([*SERVE, "--topology", "distributed"], tmp_path / "home", world, **defaults) as served:
        with load(served) as seen:
            killed = time.monotonic()
            dead = process_of(served, "Ranking")
            os.kill(dead, signal.SIGKILL)
            wait_until(lambda: process_of(served, "Ranking") not in (None, dead), why="another Ranking process")
            wait_until(lambda: sum(at > killed for _, _, at in seen) > 300, 60, "answers without it")
        counted = collections.Counter((status, degradation) for status, degradation, _ in seen)
    assert {status for status, _ in counted} == {200}, counted
    assert {rung for _, rung in counted} <= set(DEGRADATIONS), counted


@pytest.mark.slow
def test_under_stock_bentoml_serve_a_killed_ranker_comes_back_and_a_killed_arbiter_leaves_nothing(world, tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["-m", "bentoml", "serve", "bentos.recommender.service:Recommender"]
    with running(
        [*arguments, "--host", "127.0.0.1", "--port", str(port)],
        tmp_path / "home",
        world,
        url,
        STREAMREC_TOPOLOGY="distributed",
        STREAMREC_DEVICE="gpu",  # and there is none: the CPU ranks, with a warning
        # Less than a start takes: with more, the second try waits for the new process, and no other rung answers.
        STREAMREC_DEADLINE_MS="2500",
        STREAMREC_FEATURES_BUDGET_MS="200",
        STREAMREC_RETRIEVAL_BUDGET_MS="900",
        STREAMREC_RANKING_BUDGET_MS="900",
    ) as served:
        arbiter = psutil.Process(served.process.pid)
        children = {p.pid: " ".join(p.cmdline()) for p in arbiter.children(recursive=True)}
        (ranking,) = (pid for pid, line in children.items() if "--service-name Ranking" in line)
        assert served.ready()["device"] == {"wanted": "gpu", "device": "cpu", "provider": "CPUExecutionProvider"}
        assert "ranking on the CPU" in (tmp_path / "home" / "serve.log").read_text()
        os.kill(ranking, signal.SIGKILL)
        rungs = []

        def recovered():
            rungs.append(served.recommend(user_id="u1")["ranked_by"])
            return "logistic" in rungs and rungs[-1] == "dcn"

        wait_until(recovered, 60, "the ranker's return")
        assert re.search(r"streamrec_recommendations_total\{.*logistic", httpx.get(f"{url}/metrics").text)
        workers = [p.pid for p in arbiter.children(recursive=True) if "worker.service" in " ".join(p.cmdline())]
        assert len(workers) == 4
        arbiter.kill()
        wait_until(lambda: not any(map(alive, workers)), why="the end of the workers")
        assert not answers(url)
