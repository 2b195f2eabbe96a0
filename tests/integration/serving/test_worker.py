"""Starting, draining and ending of real processes."""

import concurrent.futures
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

import httpx
import psutil
import pytest

from tests.serving_processes import alive, running, wait_until

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

        # SIGTERM under load: nothing that was accepted is lost, and /readyz goes false before the listening ends.
        seen, stop = [], threading.Event()

        def load():
            with served.http as client:
                while not stop.is_set():
                    try:
                        seen.append(client.post("/v1/recommendations", json={"user_id": "u2", "k": 3}).status_code)
                    except httpx.ConnectError:  # not accepted any more: the listening has ended
                        return

        readiness = []
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(load) for _ in range(3)]
            wait_until(lambda: len(seen) > 10, 60, why="load")
            served.process.send_signal(signal.SIGTERM)
            while served.process.poll() is None:
                try:
                    readiness.append(httpx.get(f"{served.url}/readyz", timeout=5).status_code)
                except httpx.HTTPError:
                    break
            stop.set()
            errors = [error for client in clients if (error := client.exception(timeout=30))]
        assert served.process.wait(20) == 0
        assert set(seen) == {200}
        assert 503 in readiness
        # A keep-alive connection may be closed just as its client writes: that request was never accepted.
        assert all(isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) for error in errors)
        assert port_is_free(served.url)


def test_a_killed_worker_is_replaced_and_a_killed_parent_leaves_no_orphan_and_no_held_port(world, tmp_path):
    with running([*SERVE, "--workers", "2"], tmp_path / "home", world) as served:
        first = served.document["processes"]
        os.kill(first["worker 1"], signal.SIGKILL)

        def replaced():
            with contextlib.suppress(OSError):
                return served.ready()["pid"] not in first.values()

        wait_until(replaced, 60, "a new worker on the same port")
        workers = [child.pid for child in psutil.Process(served.process.pid).children()]
        assert len(workers) == 2
        # Either worker answers for both: one sample, not one for each process.
        assert httpx.get(f"{served.url}/metrics").text.count("\nstreamrec_in_flight ") == 1
        served.process.kill()
        wait_until(lambda: not any(map(alive, workers)), why="the end of the workers")
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
