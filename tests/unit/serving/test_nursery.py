"""Forked workers: replaced when they end, ended with the process that forked them."""

import contextlib
import os
import signal
import subprocess
import sys

from tests.serving_processes import ROOT, alive, wait_until

PROGRAM = """
import os, signal, sys, time
from bentos.recommender.nursery import Nursery
def serve():
    os.write(1, b"%d\\n" % os.getpid())  # in one piece: two children write
    {body}
Nursery(2, serve).run()
"""
WAITS = "signal.pause()"


@contextlib.contextmanager
def nursery(body):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
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
