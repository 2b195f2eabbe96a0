import threading
import time

import pytest

from contracts.errors import Unreachable, UsageError
from contracts.measurements import Snapshot
from contracts.routing import Upstream
from registry.background import Background
from registry.drivers.fake import FakeDriver
from registry.drivers.static import StaticDriver
from registry.releases.values import Release
from tests.unit.registry.controller.world import BEGIN_US, NEW, OLD, World, good


def test_a_static_driver_names_what_is_wanted_and_says_what_it_does_not_know() -> None:
    driver = StaticDriver({OLD: ["http://127.0.0.1:1", "unix:/s"]})
    driver.ensure([OLD, NEW])
    assert driver.upstreams() == {OLD: Upstream(urls=("http://127.0.0.1:1", "unix:/s"))}
    assert NEW in driver.problems()[NEW]
    driver.ensure([])
    assert (driver.upstreams(), driver.problems()) == ({}, {})


def test_a_bento_without_a_url_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        StaticDriver({OLD: []})


def test_a_fake_driver_can_be_away_or_lack_a_bento() -> None:
    driver = FakeDriver()
    driver.missing.add(NEW)
    driver.ensure([OLD, NEW])
    assert set(driver.upstreams()) == {OLD}
    assert set(driver.problems()) == {NEW}
    driver.away = True
    with pytest.raises(Unreachable):
        driver.ensure([OLD])


@pytest.fixture
def release() -> Release:
    world = World()
    world.start(OLD, "first")
    return world.release


def ended(background: Background, release: Release) -> Snapshot | None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if (found := background(release, BEGIN_US)) is not None:
            return found
        time.sleep(0.005)
    return None


def test_a_look_in_the_background_returns_at_once_and_its_result_later(release: Release) -> None:
    go = threading.Event()

    def slow(release: Release, now_us: int) -> Snapshot:
        go.wait(5)
        return good(release, now_us)

    background = Background(slow)
    began = time.monotonic()
    assert background(release, BEGIN_US) is None
    assert background(release, BEGIN_US) is None
    assert time.monotonic() - began < 1
    go.set()
    assert ended(background, release) == good(release, BEGIN_US)


def test_a_look_that_takes_too_long_is_a_problem_and_there_is_one_at_a_time(release: Release) -> None:
    go, looks = threading.Event(), []

    def hangs(release: Release, now_us: int) -> Snapshot:
        looks.append(now_us)
        go.wait(5)
        return good(release, now_us)

    background = Background(hangs, late_s=0.01)
    found = ended(background, release)
    assert found is not None
    assert "takes over" in (found.problem or "")
    assert len(looks) == 1
    go.set()


def test_what_the_source_raises_is_raised(release: Release) -> None:
    def broken(release: Release, now_us: int) -> Snapshot:
        raise OSError("no such folder")

    with pytest.raises(OSError, match="no such folder"):
        ended(Background(broken), release)
