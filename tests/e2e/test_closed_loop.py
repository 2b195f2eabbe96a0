"""Whole releases over HTTP, by the real controller: a population clicks by known preferences, a candidate is better or
misbehaves, and the release ends as it should by itself. The Bentos are stubs that can be told to be faulty.
"""

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from monitoring.simulation.behaviour import Behaviour
from monitoring.simulation.faulty import FAULTS, tell
from monitoring.simulation.http import Crowd, Seen
from monitoring.simulation.population import population
from tests.e2e.stack import ROOT, Cli, until

CHAMPION, CANDIDATE = "streamrec:alpha", "streamrec:beta"


@dataclass
class Loop:
    cli: Cli
    url: str
    sockets: dict[str, str]
    runs: int = 0

    def run(self, behaviour: Behaviour, fault: str, *, timeout_s: float = 120) -> tuple[dict[str, Any], Seen]:
        """A release of the candidate, which is faulty from the moment that users meet it; until it has ended."""
        self.runs += 1
        asyncio.run(tell(self.sockets[CANDIDATE], FAULTS["none"]))
        self.cli("release", "start", CANDIDATE, "--policy", "loop")
        crowd = Crowd(self.url, population(1500, self.runs, click_rate=0.4), behaviour, seed=self.runs)
        asking = threading.Thread(
            target=lambda: asyncio.run(crowd.run(rate=120, seconds=timeout_s)), name="crowd", daemon=True
        )
        asking.start()
        until(lambda: self.cli.release()["state"] != "created")
        until(lambda: self.cli.release()["weight"] > 0 or self.cli.release()["state"] != "shadow")
        asyncio.run(tell(self.sockets[CANDIDATE], FAULTS[fault]))
        until(lambda: self.cli.release()["state"] in ("promoted", "rolled_back", "paused"), timeout_s)
        return self.cli.release(), crowd.seen


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder = tmp_path_factory.mktemp("loop")
    home = folder / "home"
    (home / "policies").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("loop.toml"), home / "policies" / "loop.toml")
    sockets = {tag: f"unix:{folder / tag.rpartition(':')[2]}.sock" for tag in (CHAMPION, CANDIDATE)}
    upstreams = ", ".join(f'"{tag}" = ["{url}"]' for tag, url in sockets.items())
    (folder / "streamrec.toml").write_text(f'driver = "static"\nupstreams = {{ {upstreams} }}\n')
    stubs = [
        subprocess.Popen(
            [sys.executable, "-m", "monitoring.simulation.faulty", "--bento", tag, "--listen", url],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for tag, url in sockets.items()
    ]
    cli = Cli(
        home,
        {
            "STREAMREC_CONFIG": str(folder / "streamrec.toml"),
            "STREAMREC_DEADLINE_MS": "1000",
            "STREAMREC_PATIENCE_MS": "1000",
        },
    )
    try:
        until(lambda: all(Path(url.removeprefix("unix:")).exists() for url in sockets.values()))
        up = cli("up", "--port", "0", "--no-ui")
        cli("release", "start", CHAMPION, "--policy", "loop")
        until(lambda: cli("status")["serving"], what="the champion serves")
        yield Loop(cli, up["url"], sockets)
    finally:
        cli("down")
        for stub in stubs:
            stub.terminate()
            stub.wait(10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "behaviour"),
    [
        ("failing", Behaviour()),
        ("slow", Behaviour()),
        ("empty", Behaviour()),
        ("none", Behaviour(click_factor=0.1)),
    ],
    ids=["errors", "slow", "empty for one country", "fewer clicks"],
)
def test_a_harmful_candidate_is_rolled_back_and_nobody_sees_an_error(
    loop: Loop, fault: str, behaviour: Behaviour
) -> None:
    release, seen = loop.run(behaviour, fault)
    assert release["state"] == "rolled_back", release
    assert loop.cli("release", "status")["champion"] == CHAMPION
    assert not seen.failed, seen.failed
    print(fault, behaviour.click_factor, "users met:", len(seen.met), "of", seen.document())


@pytest.mark.slow
def test_a_better_candidate_reaches_everyone_by_itself(loop: Loop) -> None:
    release, seen = loop.run(Behaviour(click_factor=1.8), "none", timeout_s=200)
    assert release["state"] == "promoted", release
    assert not seen.failed, seen.failed
    assert loop.cli("release", "status")["champion"] == CANDIDATE
