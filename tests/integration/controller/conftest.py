"""Real controller processes on one SQLite home, with Bentos that someone else runs (the `static` driver)."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from contracts.routing import RoutingTable
from contracts.settings import Settings
from registry.control.sql import control_store
from registry.control.store import ControlStore
from registry.keys import routing_signer
from registry.releases import commands
from registry.releases.result import Result
from registry.releases.routing import RoutingWriter
from registry.releases.status import read_report
from tests.upstreams import Upstream, serve

ROOT = Path(__file__).resolve().parents[3]
OLD, NEW = "streamrec:old", "streamrec:new"
# Steps without evidence, so that only commands move a release.
POLICY = """
schema_version = 1
name = "by-hand"
version = "1"
evidence = "any"
advance = "manual"
warm_hours = 1

[[metrics]]
name = "errors"
kind = "error_rate"
direction = "lower"
critical = true
limit = 0.01

[[steps]]
kind = "canary"
weight = 5
metrics = ["errors"]
least_minutes = 0

[[steps]]
kind = "canary"
weight = 50
metrics = ["errors"]
least_minutes = 0
"""


def until(condition: Callable[[], Any], what: str, seconds: float = 20.0, every_s: float = 0.02) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(every_s)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass
class Stack:
    """One home, its Bentos, and the controllers that were started on it."""

    settings: Settings
    upstreams: dict[str, Upstream]
    controllers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.settings.home

    @property
    def store(self) -> ControlStore:
        return control_store(self.settings)

    def controller(self, *argv: str) -> subprocess.Popen[bytes]:
        with (self.home / "controller.log").open("ab") as log:
            process = subprocess.Popen(
                argv or (sys.executable, "-m", "cli.controller"), cwd=ROOT, env={**os.environ, **self.env}, stderr=log
            )
        self.controllers.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def table(self) -> RoutingTable | None:
        return RoutingWriter(self.home, routing_signer(self.home)).last()

    def routed(self) -> tuple[str | None, float]:
        """(champion, weight of the candidate)."""
        table = self.table()
        champion = table.champion.bento if table and table.champion else None
        return champion, table.release.weight if table and table.release else 0.0

    def leader(self) -> int | None:
        """Process id of the one that leads."""
        report = read_report(self.home)
        fresh = time.time() * 1e6 - report.get("at_us", 0) < 3e6
        return int(report["holder"].split(":")[-2]) if fresh else None

    def log(self) -> str:
        return (self.home / "controller.log").read_text()

    def run(self, operation: Callable[..., Result], **arguments: Any) -> Result:
        return operation(self.store, self.settings, None, now_us=time.time_ns() // 1000, **arguments)

    def first_champion(self) -> None:
        self.run(commands.start, tag=OLD, policy="by-hand")
        until(lambda: self.routed() == (OLD, 0), "the first champion is routed")

    def canary(self) -> None:
        self.run(commands.start, tag=NEW, policy="by-hand")
        self.run(commands.canary)
        until(lambda: self.routed() == (OLD, 5), "5 % are routed to the candidate")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    home = tmp_path / "home"
    (home / "policies").mkdir(parents=True)
    (home / "policies" / "by-hand.toml").write_text(POLICY)
    with contextlib.ExitStack() as servers:
        upstreams = {tag: servers.enter_context(serve(Upstream(tag))) for tag in (OLD, NEW)}
        urls = {tag: [upstream.url] for tag, upstream in upstreams.items()}
        config = tmp_path / "streamrec.toml"
        config.write_text(
            f'driver = "static"\ncontrol_port = 0\nhome = {json.dumps(str(home))}\n'
            + "[upstreams]\n"
            + "".join(f"{json.dumps(tag)} = {json.dumps(found)}\n" for tag, found in urls.items())
        )
        settings = Settings(home=home, driver="static", upstreams=urls, control_port=0)
        made = Stack(settings, upstreams, env={"STREAMREC_CONFIG": str(config), "OMP_NUM_THREADS": "1"})
        try:
            yield made
        finally:
            for process in made.controllers:
                if process.poll() is None:
                    process.kill()
                process.wait()
