"""A controller dies before or after each call that it makes to the world, and another goes on: nothing is done twice,
nothing is left out, and there is one champion all along."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.routing import BreakGlass, Target
from registry.releases.values import Promote
from tests.unit.registry.controller.world import NEW, World

THIRD = "streamrec:third"


def life(world: World) -> None:
    """First champion; a second that is promoted by evidence; a third that a break-glass order ends; the cooling."""
    world.first_champion()
    world.start(NEW, "second")
    world.until(lambda: world.routed() == NEW)
    world.start(THIRD, "third")
    world.until(lambda: world.weight() == 5)
    world.writer.order = BreakGlass(
        id="glass-1", champion=Target(bento=NEW), actor="local:root", reason="it burns", written_at=""
    )
    world.until(lambda: world.writer.last().adopted == ("glass-1",))
    world.until(lambda: not world.state.warm, 5 * 3600)
    world.until(lambda: world.driver.up == (NEW,))


@functools.cache
def undisturbed() -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    world = World()
    life(world)
    return tuple(world.fate.calls), world.steps()


def points() -> list[int]:
    """Number of each call that changes something, and of the first few of each that only reads."""
    seen: dict[str, int] = {}
    found = []
    for number, name in enumerate(undisturbed()[0], start=1):
        seen[name] = seen.get(name, 0) + 1
        leaf = name.rpartition(".")[2]
        if leaf in ("commit", "write") or seen[name] <= 3:
            found.append(number)
    return found


@pytest.mark.parametrize("after", [False, True])
def test_wherever_it_dies_the_end_is_the_same_and_each_step_was_applied_once(after: bool) -> None:
    for number in points():
        world = World()
        world.fate.dies_at = (number, after)
        life(world)
        where = f"{'after' if after else 'before'} call {number}, {undisturbed()[0][number - 1]}"
        assert world.steps() == undisturbed()[1], where
        assert world.state.champion == Target(bento=NEW), where
        assert world.aliases.wanted[-1] == (NEW, None), where
        versions = [(t.epoch, t.version) for t in world.writer.tables]
        assert versions == sorted(set(versions)), where


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), max_size=4))
def test_dying_again_and_again_changes_nothing(deaths: list[tuple[int, bool]]) -> None:
    world = World()
    fated = iter(deaths)

    def next_death() -> None:
        number, after = next(fated, (0, False))
        world.fate.dies_at = (len(world.fate.calls) + number, after) if number else None

    next_death()
    make = world.new_controller

    def reborn(*args: str) -> object:
        next_death()
        return make(*args)

    world.new_controller = reborn  # type: ignore[assignment]
    life(world)
    assert world.steps() == undisturbed()[1]


def test_a_promotion_that_was_never_routed_is_routed_by_the_next_one() -> None:
    world = World()
    world.first_champion()
    world.start(NEW, "second")
    world.until(lambda: world.weight() == 5)
    world.command(Promote(force=True))  # committed; the one that would have routed it is dead
    world.controller = world.new_controller()
    world.until(lambda: world.routed() == NEW, 10)
    assert world.aliases.wanted[-1] == (NEW, None)
