"""The watch closes the loop by itself, over HTTP and through real processes: a population drifts, the watch raises an
alert, its policy trains on what was logged, the result goes through the gates of a release, and the alert is over.

Nothing is played: `up` with its watch process, the simulated crowd of a synthetic world, a training of all models. From
the drift on the test only waits and reads.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from contracts.settings import Settings
from monitoring.alerts.channels.log import read_alerts
from monitoring.retraining import history
from monitoring.watch.state import DOCUMENT, state_from
from registry.control.documents import SqlDocuments
from registry.control.sql import SqlStore, control_store
from registry.releases.values import Release
from tests.e2e.stack import ROOT, Cli, until

HERE = Path(__file__).parent
RATE = 6  # requests a second: about 360 of 300 users in a window of the watch
WORLD = ("--users", "300", "--items", "100", "--events", "20000", "--seed", "3")
DRIFT = ("--drift", "device=web:3", "--swap", "device=web")  # most come on the web now, and like other things there

Row = dict[str, Any]


@dataclass
class Loop:
    cli: Cli
    url: str
    world: Path

    @contextmanager
    def crowd(self, *drift: str) -> Iterator[None]:
        """`streamrec simulate` for as long as the block lasts; nobody may be left without a slate."""
        words = ["simulate", "--url", self.url, "--world", str(self.world), "--rate", str(RATE), "--seconds", "3600"]
        argv = [sys.executable, "-m", "cli", *words, *drift, "--json"]
        process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            seen = json.loads(process.communicate(timeout=60)[0])
        assert seen["requests"] > 0
        assert seen["failed"] == 0, seen

    # Read where the commands read: a command that is asked again and again takes a core from those that are watched.

    @cached_property
    def store(self) -> SqlStore:
        return control_store(Settings(home=self.cli.home))

    @property
    def champion(self) -> str:
        state = self.store.load()
        return state.champion.bento if state.champion else ""

    @property
    def release(self) -> Release:
        """The newest."""
        release = self.store.load().release
        assert release is not None
        return release

    def runs(self) -> list[Row]:
        """The trainings that the policy asked for and that have ended."""
        return [run for run in history.runs_of(SqlDocuments(self.store)) if run["state"] != "running"]

    def told(self) -> list[Row]:
        """Of drift, oldest first."""
        return [row for row in read_alerts(self.cli.home) if row["subject"] == "quality"]

    def device(self, ranker: str, since_us: int = 0) -> str | None:
        """What the watch said of the devices of a ranker's requests; None while it has not looked."""
        signals = state_from(SqlDocuments(self.store).read(DOCUMENT)[1]).signals
        said = {s.name: s.verdict for s in signals if s.model == ranker and s.at >= since_us}
        if said.get("drift.input", "inconclusive") == "inconclusive":
            return None
        return said.get("drift.input.device", "ok")


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """The stack with a champion that learned from the world as it was."""
    folder = tmp_path_factory.mktemp("watch-loop")
    home, world = folder / "home", folder / "world"
    (home / "policies").mkdir(parents=True)
    (home / "policies" / "loop.toml").write_bytes((HERE / "watch_policy.toml").read_bytes())
    (home / "monitoring").mkdir()
    schema = (HERE / "watch_loop.toml").read_text().replace("WORLD", str(world))
    (home / "monitoring" / "default.toml").write_text(schema)
    more = {"STREAMREC_WATCH_PORT": "0", "STREAMREC_LOG_ROWS": "1", "STREAMREC_REPORTS_MB": "0"}
    patient = {"STREAMREC_DEADLINE_MS": "9000", "STREAMREC_PATIENCE_MS": "9000", "OMP_WAIT_POLICY": "PASSIVE"}
    cli = Cli(home, more | patient)  # a training beside it must not turn the answers into a gateway's own
    cli("monitor", "schema")
    cli("data", "synth", str(world), *WORLD)
    cli("train", "--data", str(world), timeout_s=3600)
    tag = cli("build", timeout_s=900)["tag"]
    cli("features", "materialize", "--data", str(world), "--bento", tag, timeout_s=600)
    up = cli("up", "--port", "0", "--no-ui", timeout_s=600)
    try:
        cli("release", "start", tag, "--policy", "loop", timeout_s=600)
        until(lambda: cli("status")["serving"], 300, what="the champion serves")
        yield Loop(cli, up["url"], world)
    finally:
        cli("down")


@pytest.mark.slow
def test_drift_alert_training_release_and_recovery_without_a_hand(loop: Loop) -> None:
    first = loop.champion
    began = {}
    with loop.crowd():
        until(lambda: loop.device("streamrec-ranking/1"), 1800, "a look at the world as it was")
        assert loop.device("streamrec-ranking/1") == "ok"
        assert loop.told() == []

    began["drift"] = time.time_ns() // 1000
    with loop.crowd(*DRIFT):
        (raised,) = until(loop.told, 1800, "the alert")
        (run,) = until(loop.runs, 3600, "the training")
        assert run["state"] == "done", run
        until(lambda: not loop.release.active, 1800, "the release")
        assert loop.release.state == "promoted", loop.cli.release()
        began["promoted"] = time.time_ns() // 1000
        told = until(lambda: len(rows := loop.told()) > 1 and rows, 1800, "the recovery")
        until(lambda: loop.device("streamrec-ranking/2", began["promoted"] + 60_000_000), 1800, "a look at the new one")

    assert [(row["kind"], row["model"]) for row in told] == [
        ("raised", "streamrec-ranking/1"),
        ("recovered", "streamrec-ranking/1"),
    ]
    assert told[0]["alert"] == told[1]["alert"]
    assert "drift.input.device" in raised["text"]
    assert run["why"].startswith("device: drift.input.device is in breach")
    assert list(run["steps"]) == ["train", "build", "release"]
    assert loop.champion == run["steps"]["build"]["tag"] != first
    # The same devices as before the training, and the new model has learned from them.
    assert loop.device("streamrec-ranking/2") == "ok"
    moments = {**began, "alert": raised["at_us"], "training": run["began_us"], "released": run["ended_us"]}
    moments["recovery"] = told[1]["at_us"]
    loop.world.with_name("moments.json").write_text(json.dumps(moments))  # for benchmarks/watch_loop.py
    print({name: round((at_us - began["drift"]) / 1e6, 1) for name, at_us in moments.items()})
