"""Starting, draining and ending of real processes."""

import asyncio
import collections
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys

import httpx
import psutil
import pytest

from tests.serving_processes import belonging_to, running, wait_until

BODY = b'{"user_id": "u2", "k": 3}'
ASK = b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
SERVE = ["-m", "cli", "serve", "--port", "0", "--json", "--drain-s", "2"]


def port_is_free(url):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(url.rpartition(":")[2])))
        except OSError:
            return False
        return True


@pytest.fixture
def without_ranker(world, tmp_path):
    """The bundles, the ranking one without its network."""
    bundles = tmp_path / "bundles"
    shutil.copytree(world, bundles)
    (bundles / "ranking" / "dcn.onnx").unlink()
    return bundles


def test_without_the_rankers_file_it_starts_degraded_says_so_and_stops_cleanly_on_sigterm(without_ranker, tmp_path):
    with running(SERVE, tmp_path / "home", without_ranker) as served:
        ready = served.ready()
        assert (ready["status"], ready["best"]) == ("degraded", "simple_ranking")
        assert ready["components"]["ranking"]["state"] == "unhealthy"
        assert "dcn.onnx" in ready["components"]["ranking"]["detail"]
        answer = served.recommend(user_id="u1", k=5)
        assert (answer["degradation"], answer["ranked_by"], len(answer["items"])) == ("simple_ranking", "logistic", 5)
        assert served.document["status"] == "degraded"

        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
        assert port_is_free(served.url)


# Each with how many keep-alive clients that ask again as soon as they have an answer.
TOPOLOGIES = {
    "two": (["--workers", "2"], 24),
    "distributed": (["--topology", "distributed"], 16),
}


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_sigterm_under_load_loses_no_request_and_readyz_is_false_before_the_listening_ends(world, tmp_path, topology):
    arguments, many = TOPOLOGIES[topology]
    with running([*SERVE, *arguments], tmp_path / "home", world) as served:
        port = int(served.url.rpartition(":")[2])
        statuses, lost, readiness = collections.Counter(), [], []

        async def client():
            """Keeps its connection for as long as the server does. Only a connection that is refused ends it: the
            request was never accepted.
            """
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    return
                try:
                    while True:
                        writer.write(ASK)
                        head = (await reader.readuntil(b"\r\n\r\n")).lower()
                        await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
                        statuses[int(head.split()[1])] += 1
                        if b"connection: close" in head:
                            break
                except (OSError, EOFError) as error:
                    lost.append(repr(error))
                finally:
                    writer.close()

        async def watch():
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    return
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                readiness.append(int((await reader.read()).split()[1]))
                writer.close()

        async def load():
            clients = [asyncio.create_task(one()) for one in (*[client] * many, watch)]
            while statuses[200] < 10 * many:
                await asyncio.sleep(0.01)
            served.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*clients), 60)

        asyncio.run(load())
        assert served.process.wait(30) == 0
        assert not lost
        assert set(statuses) <= {200, 429}  # on a busy machine a request may be refused, and told so: it is not lost
        assert sorted(readiness) == readiness  # 200 until the signal, 503 from then on
        assert {200, 503} <= set(readiness)
        assert port_is_free(served.url)


def test_a_killed_worker_and_a_killed_nursery_are_replaced_and_a_killed_parent_leaves_nothing(world, tmp_path):
    home = tmp_path / "home"
    with running([*SERVE, "--workers", "2"], home, world) as served:
        first = served.document["processes"]
        assert set(first) == {"worker 1", "worker 2"}

        def workers():
            """The two that serve, and the one that they were forked from."""
            return {pid for pid, words in belonging_to(home).items() if "bentos.recommender.worker" in words}

        def told():
            """Those of whom a scrape would tell what holds at the moment."""
            return {int(file.stem.rpartition("_")[2]) for file in home.glob("run/metrics-*/gauge_live*.db")}

        wait_until(lambda: told() == set(first.values()), why="gauges of both")

        def replaced(gone):
            with contextlib.suppress(OSError):
                return not gone & workers() and len(workers()) == 3 and served.ready()["pid"] not in gone

        os.kill(first["worker 1"], signal.SIGKILL)
        wait_until(lambda: replaced({first["worker 1"]}), 60, "a new worker on the same port")
        wait_until(lambda: told() <= workers(), why="gauges of living workers alone")
        # Either worker answers for both: one sample, not one for each process.
        assert httpx.get(f"{served.url}/metrics").text.count("\nstreamrec_in_flight ") == 1

        before = workers()
        (nursery,) = [child.pid for child in psutil.Process(served.process.pid).children()]
        os.kill(nursery, signal.SIGKILL)
        wait_until(lambda: replaced(before), 60, "a new nursery with two workers")
        wait_until(lambda: told() <= workers(), why="gauges of living workers alone")

        served.process.kill()
        wait_until(lambda: not belonging_to(home), 40, "the end of all processes")
        assert port_is_free(served.url)


def test_whichever_process_is_killed_it_is_replaced_and_after_its_parent_nothing_is_left(world, tmp_path):
    home = tmp_path / "home"
    with running([*SERVE, "--topology", "distributed"], home, world) as served:
        event = {"user_id": "u1", "item_id": "i1", "event": "click", "timestamp": "2023-11-14T22:00:00Z"}

        def accepted(number):
            answer = httpx.post(f"{served.url}/v1/events", json=[{**event, "event_id": f"e{number}"}], timeout=30)
            return answer.status_code == 202

        def consumers():
            return {pid for pid, words in belonging_to(home).items() if "bentos.telemetry.consumer" in words}

        def runners():
            return {pid for pid, words in belonging_to(home).items() if "--service" in words}

        assert accepted(1)
        (consumer,), before = consumers(), runners()
        victims = {consumer, *before, served.document["processes"]["worker 1"]}
        for pid in victims:
            os.kill(pid, signal.SIGKILL)

        def whole_again():
            with contextlib.suppress(OSError, httpx.HTTPError):
                return (
                    accepted(2)
                    and len(consumers()) == 1
                    and len(runners()) == len(before)
                    and served.ready()["status"] == "ready"
                )

        wait_until(whole_again, 120, "all processes there again")
        assert not victims & set(belonging_to(home))
        assert served.recommend(user_id="u1", k=3)["degradation"] == "full"

        served.process.kill()
        wait_until(lambda: not belonging_to(home), 40, "the end of all processes")
        assert port_is_free(served.url)


def test_serve_says_what_to_do_about_a_taken_port_and_a_bento_that_is_not_there(world, tmp_path):
    def serve(*words, **env):
        return subprocess.run(
            [sys.executable, "-m", "cli", "serve", *words],
            env={**os.environ, "STREAMREC_HOME": str(tmp_path / "home"), **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    missing = serve("streamrec:nope")
    assert (missing.returncode, "streamrec:nope" in missing.stderr, "next:" in missing.stderr) == (4, True, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = serve("--port", str(port), STREAMREC_BUNDLES=str(world))
    assert (refused.returncode, str(port) in refused.stderr) == (5, True)
    nothing = serve("--port", "0", STREAMREC_BUNDLES=str(tmp_path))
    assert (nothing.returncode, "can serve nothing: retrieval" in nothing.stderr) == (1, True)
    assert "Traceback" not in missing.stderr + refused.stderr
