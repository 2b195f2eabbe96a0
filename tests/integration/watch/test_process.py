"""The process itself: it looks, is killed, goes on where it was, and takes its children with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from contracts.settings import Settings
from monitoring.watch.state import DOCUMENT, state_from
from registry.control.documents import SqlDocuments
from registry.control.sql import control_store
from tests.e2e.stack import ROOT, until


@contextmanager
def watch(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = home / "watch.log"
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.watch"],
            cwd=ROOT,
            stdout=sink,
            stderr=sink,
            env={
                **os.environ,
                "STREAMREC_HOME": str(home),
                "STREAMREC_WATCH_PORT": "0",
                "STREAMREC_CONFIG": "none",
            },
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def test_it_looks_is_killed_and_goes_on_where_it_was(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    store = control_store(settings)
    store.load()
    (tmp_path / "log").mkdir()
    documents = SqlDocuments(store)

    def looks(check: str) -> int:
        look = state_from(documents.read(DOCUMENT)[1]).looks.get(f"{check}|")
        return look.runs if look else 0

    with watch(tmp_path) as first:
        until(lambda: looks("levels") == 1, what="a look at the service levels")
        line = until(lambda: [x for x in (tmp_path / "watch.log").read_text().splitlines() if "/metrics" in x])[0]
        url = line.rpartition(" ")[2]
        text = until(lambda: (found := httpx.get(url).text) and "level.availability" in found and found)
        assert "streamrec_watch_leading 1.0" in text
        assert 'streamrec_signal_verdict{model="",signal="level.availability"} 0.5' in text  # nobody asked anything
        assert psutil.Process(first.pid).nice() >= 10
        children = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(signal.SIGKILL)
        first.wait(10)
        until(lambda: not any(child.is_running() for child in children), what="its children are gone")
    assert looks("levels") == 1

    with watch(tmp_path) as second:
        until(lambda: looks("freshness") >= 1, what="the next one takes the lease, and looks")
        second.terminate()
        assert second.wait(15) == 0
    state = state_from(documents.read(DOCUMENT)[1])
    assert {s.name for s in state.signals} >= {"level.latency", "run.training", "age.batch_lists", "run.check.levels"}
    assert [s for s in state.signals if s.verdict == "breach"] == []
