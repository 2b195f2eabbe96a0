"""One catalogue for several machines, in a real Redis; a machine is a home with a consumer's intake."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bentos.catalogue.intake import CatalogueIntake
from bentos.catalogue.shared import SharedCatalogue
from bentos.catalogue.store import CatalogueReader
from bentos.telemetry.wire import Batch, Reply
from contracts.live_items import ItemChange, ItemFacts
from tests.redis_server import RedisServer, started

pytestmark = pytest.mark.redis


class Machine:
    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        self._reader = CatalogueReader(home)
        self.intake = CatalogueIntake(home, 100, SharedCatalogue(url, timeout_s=0.5))

    def change(self, *changes: ItemChange) -> Reply:
        return asyncio.run(self.intake.answer(Batch(1, [], list(changes))))

    def meet(self) -> bool:
        return self.intake._meet()

    def known(self) -> dict[str, tuple[bool, str | None]]:
        """Item → withheld, category: what every process of this machine reads."""
        states = self._reader.news().states
        return {s.item_id: (s.withheld, s.facts.category if s.facts else None) for s in states}


def put(item_id: str, category: str = "c") -> ItemChange:
    return ItemChange(item_id, "put", 1, ItemFacts(category))


def flag(item_id: str, flagged: bool = True) -> ItemChange:
    return ItemChange(item_id, "flag", 1, flagged=flagged)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Of the test's own, and it forgets everything when it is killed."""
    (tmp_path / "redis").mkdir()
    made = started(tmp_path / "redis", durable=False)
    yield made
    made.stop()


@pytest.fixture
def two(server: RedisServer, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    machines = Machine(tmp_path / "a", server.url), Machine(tmp_path / "b", server.url)
    yield machines
    for machine in machines:
        machine.intake.close()


def test_what_one_machine_is_told_the_others_know(two: tuple[Machine, Machine]) -> None:
    a, b = two
    assert a.change(put("x"), flag("y")).changed == ["x", "y"]
    assert b.meet()
    assert b.known() == {"x": (False, "c"), "y": (True, None)} == a.known()
    assert b.change(flag("y", flagged=False), put("x", "d"), ItemChange("z", "remove", 2)).problem is None
    assert b.change(flag("y", flagged=False)).changed == []
    assert a.meet()
    assert a.known() == {"x": (False, "d"), "y": (False, None), "z": (True, None)} == b.known()


def test_without_redis_an_item_is_taken_down_here_the_caller_is_told_and_the_others_follow_later(
    two: tuple[Machine, Machine], server: RedisServer
) -> None:
    a, b = two
    a.change(put("x"))
    b.meet()
    server.stop()
    reply = a.change(flag("x"))
    assert "does not answer" in (reply.problem or "")
    assert not reply.refused
    assert a.known()["x"] == (True, "c")
    assert not a.meet()
    server.start()  # empty: it has forgotten everything
    assert a.meet()
    assert b.meet()
    assert b.known() == {"x": (True, "c")} == a.known()


def test_machines_that_knew_items_before_they_met_put_both_together_and_what_either_withheld_is_withheld(
    server: RedisServer, tmp_path: Path
) -> None:
    for name, changes in (("a", [put("x", "of a"), put("only a")]), ("b", [put("x", "of b"), flag("x"), flag("y")])):
        alone = CatalogueIntake(tmp_path / name, 100)
        (tmp_path / name).mkdir()
        asyncio.run(alone.answer(Batch(1, [], changes)))
        alone.close()
    a, b = Machine(tmp_path / "a", server.url), Machine(tmp_path / "b", server.url)
    assert a.meet()
    assert b.meet()
    assert a.meet()
    assert a.known() == {"x": (True, "of a"), "only a": (False, "c"), "y": (True, None)} == b.known()
    a.intake.close()
    b.intake.close()


def test_two_machines_that_write_at_the_same_time_lose_nothing(two: tuple[Machine, Machine]) -> None:
    async def write(machine: Machine, name: str) -> None:
        for n in range(30):
            reply = await machine.intake.answer(Batch(n, [], [put(f"{name}{n}"), flag("both", flagged=n % 2 == 0)]))
            assert reply.problem is None

    async def both() -> None:
        await asyncio.gather(write(two[0], "a"), write(two[1], "b"))

    asyncio.run(both())
    assert two[0].meet()
    assert two[1].meet()
    assert two[0].known() == two[1].known()
    assert len(two[0].known()) == 61
