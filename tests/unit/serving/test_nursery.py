"""Forked workers: replaced when they end, ended with the process that forked them."""

import contextlib
import os
import signal
import subprocess
import sys

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from tests.serving_processes import ROOT, alive, wait_until

PROGRAM = """
import contextlib, os, signal, sys, time
from bentos.recommender.nursery import Nursery
def serve():
    os.write(1, b"%d\\n" % os.getpid())  # in one piece: two children write
    {body}
Nursery(2, serve, {patience_s}).run()
"""
WAITS = "signal.pause()"


@contextlib.contextmanager
def nursery(body, patience_s=10.0, **env):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body, patience_s=patience_s)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def pid_of(process):
    return int(process.stdout.readline())


def test_a_child_that_ends_is_forked_again_and_sigterm_ends_all():
    with nursery(WAITS) as process:
        first = {pid_of(process), pid_of(process)}
        os.kill(min(first), signal.SIGKILL)
        again = pid_of(process)
        assert again not in first
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not any(map(alive, {again, *first}))


def test_killed_itself_it_leaves_no_child():
    with nursery(WAITS) as process:
        children = {pid_of(process), pid_of(process)}
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(alive, children)), why="the end of the children")


def test_children_that_cannot_start_end_it_with_their_exit_code():
    with nursery("sys.exit(3)") as process:
        assert process.wait(20) == 3


MEASURES = """from bentos.recommender.metrics import Metrics
    breaker = Metrics().breaker.labels("events")
    with contextlib.suppress(FileExistsError), open(os.environ["ILL"], "x") as ill:  # the first of them
        breaker.set(2)
        ill.write(str(os.getpid()))
    signal.pause()"""


def test_a_gauge_of_a_killed_child_is_not_the_services_for_ever(tmp_path):
    ill = tmp_path / "ill"

    def state():
        merged = CollectorRegistry()
        MultiProcessCollector(merged, path=str(tmp_path))
        return merged.get_sample_value("streamrec_breaker_state", {"dependency": "events"})

    with nursery(MEASURES, PROMETHEUS_MULTIPROC_DIR=str(tmp_path), ILL=str(ill)):
        wait_until(lambda: ill.exists() and ill.read_text(), why="a child whose breaker is open")
        assert state() == 2
        os.kill(int(ill.read_text()), signal.SIGKILL)
        wait_until(lambda: state() == 0, why="the breaker closed")


def test_a_child_that_hears_no_signal_is_killed():
    with nursery(WAITS, patience_s=0.3) as process:
        children = [pid_of(process), pid_of(process)]
        os.kill(children[0], signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not any(map(alive, children))
