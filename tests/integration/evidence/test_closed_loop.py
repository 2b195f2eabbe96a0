"""Users over HTTP through a real gateway to Bentos that misbehave when told, and back from the logs as evidence."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bentos.telemetry.event_log import read_events
from contracts.errors import Unreachable
from contracts.measurements import Snapshot
from contracts.routing import ReleaseRoute, Target, Upstream
from contracts.settings import Settings
from monitoring.evidence.source import evidence_source
from monitoring.simulation.behaviour import Behaviour
from monitoring.simulation.faulty import FAULTS, tell
from monitoring.simulation.http import Crowd, Seen
from monitoring.simulation.population import population
from registry.readiness import ready_look
from registry.releases.policy import Metric, Policy, Step
from registry.releases.values import PolicyText, Release
from tests.integration.gateway.conftest import World
from tests.serving_processes import wait_until

METRICS = (
    Metric(name="errors", kind="error_rate", direction="lower", critical=True, limit=0.02),
    Metric(name="empty", kind="empty", direction="lower", critical=True, limit=0.02, slices=("country",)),
    Metric(name="ctr", kind="ctr", direction="higher", critical=True, margin=0.3, relative=True),
)


@dataclass
class Loop:
    """A gateway with `alpha` as champion and `beta` as candidate at 50 %, both faulty Bentos. clicks: sent so far."""

    world: World
    urls: dict[str, str]
    release: str = ""
    clicks: int = 0

    def begin(self, release: str, fault: str = "none") -> None:
        """Another release, of a candidate with this fault."""
        asyncio.run(tell(self.urls["beta"], FAULTS[fault]))
        route = ReleaseRoute(id=release, step="canary 50 %", candidate=Target(bento="beta"), weight=50)
        self.world.write(release=route, bentos={tag: Upstream(urls=(url,)) for tag, url in self.urls.items()})
        self.release = release

        def applied() -> bool:
            answer = self.world.http.post("/v1/recommendations", json={"user_id": "probe", "k": 1}).json()
            return release in answer.get("experiments", {})

        wait_until(applied, 10, "the table is applied")  # one probe has met the release then

    def ask(self, candidate: Behaviour, rate: float = 200, requests: int = 400, seed: int = 1) -> Seen:
        people = population(1000, seed, click_rate=0.4)
        crowd = Crowd(self.world.url, people, candidate, seed=seed)
        seen = asyncio.run(crowd.run(rate=rate, requests=requests))
        self.clicks += seen.clicks
        return seen

    def evidence(self, now_us: int) -> Snapshot:
        release = Release(
            id=self.release,
            candidate=Target(bento="beta"),
            champion=Target(bento="alpha"),
            policy_text=PolicyText(name="p", version="1", sha256="0" * 64, text=""),
            policy=Policy(
                name="p", version="1", metrics=METRICS, steps=(Step(kind="canary", weight=50, metrics=("errors",)),)
            ),
            state="canary",
            step=0,
            created_us=0,
            step_since_us=0,
            since_us=1,
        )
        return evidence_source(Settings(home=self.world.home))(release, now_us)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder = tmp_path_factory.mktemp("loop")
    world = World(folder)
    urls = {tag: f"unix:{folder / tag}.sock" for tag in ("alpha", "beta")}
    command = [sys.executable, "-m", "monitoring.simulation.faulty"]
    bentos = [subprocess.Popen([*command, "--bento", tag, "--listen", url]) for tag, url in urls.items()]
    try:
        wait_until(lambda: all(ready_look(t, u, 1.0)[0] == "ready" for t, u in urls.items()), 30, "both Bentos")
        world.write(bentos={tag: Upstream(urls=(url,)) for tag, url in urls.items()})
        world.start()
        yield Loop(world, urls)
    finally:
        world.close()
        for bento in bentos:
            bento.kill()
            bento.wait()


def settled(loop: Loop, seen: Seen) -> Snapshot:
    """The evidence once all that was sent is in the logs."""
    far_us = 1 << 52

    def all_there() -> bool:
        arms = loop.evidence(far_us).arms
        requests = sum(arms[name].requests for name in ("candidate", "control") if name in arms)
        return len(read_events(loop.world.home)) == loop.clicks and requests == seen.requests + 1

    wait_until(all_there, 20, "all records")
    return loop.evidence(far_us)


def test_clicks_come_back_as_evidence_of_the_arm_that_earned_them(loop: Loop) -> None:
    loop.begin("clicks")
    seen = loop.ask(Behaviour(click_factor=0.2), requests=1200)
    assert sum(seen.failed.values()) == 0
    assert seen.events_refused == 0
    assert set(seen.variants) == {"candidate", "control"}
    found = settled(loop, seen)
    ctr = found.metrics["ctr"]
    assert ctr.value is not None
    assert ctr.control is not None
    assert ctr.value < 0.5 * ctr.control
    assert ctr.ci is not None
    assert ctr.ci[1] < 0  # harm, beyond doubt
    assert found.metrics["errors"].value == 0
    assert found.arms["candidate"].requests - seen.variants["candidate"] in (0, 1)  # the probe


def test_empty_slates_of_one_country_are_seen_in_its_slice(loop: Loop) -> None:
    loop.begin("empty", "empty")
    seen = loop.ask(Behaviour())
    assert seen.empty == 0
    empty = settled(loop, seen).metrics["empty"]
    assert empty.value is not None
    assert empty.value > 0.02


def test_a_candidate_that_fails_is_seen_in_the_logs_and_by_nobody(loop: Loop) -> None:
    loop.begin("failing", "failing")
    seen = loop.ask(Behaviour())
    assert sum(seen.failed.values()) == 0
    assert seen.empty == 0
    assert seen.bentos["alpha"] > seen.bentos["beta"]  # the champion stood in
    errors = settled(loop, seen).metrics["errors"]
    assert errors.value is not None
    assert errors.value > 0.2
    assert errors.value_ci is not None
    assert errors.value_ci[0] > 0.02


def test_a_crowd_without_a_gateway_says_so() -> None:
    crowd = Crowd("http://127.0.0.1:9", population(10, 1), Behaviour(), seed=1)
    with pytest.raises(Unreachable, match="does not answer"):
        asyncio.run(crowd.run(rate=10, requests=1))
