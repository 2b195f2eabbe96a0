"""Any sequence of commands, evidence, faults, deaths and clock jumps: one champion, no traffic for an unready Bento,
versions that only grow; and when the faults are over, the table says what the database says."""

import contextlib
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contracts.errors import Refused, Unreachable
from contracts.routing import BreakGlass, RoutingTable, Target
from registry.control.store import Conflict
from registry.releases.invariants import invariants
from registry.releases.values import Command, Go, Pause, Promote, Resume, Rollback
from tests.unit.registry.controller.test_controller import nothing, raising, silent
from tests.unit.registry.controller.world import OLD, SECOND, Died, World, bad, good

BENTOS = [OLD, "streamrec:b", "streamrec:c"]
COMMANDS: list[Command] = [Go(), Promote(), Promote(force=True), Rollback(), Pause(), Resume()]


class AnySequence(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.releases = 0
        self.other = self.world.new_controller("other")
        self.full = False
        write, load = self.world.writer.write, self.world.store.load

        def checked(table: RoutingTable) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            state = load()
            assert table.champion == state.champion
            release = table.release
            if release and (release.weight or release.shadow):
                assert release.candidate.bento not in self.world.probe.down
                assert state.release
                assert state.release.active
            write(table)

        self.world.writer.write = checked  # type: ignore[method-assign]

    @initialize()
    def a_champion(self) -> None:
        self.world.first_champion()

    @rule(bento=st.sampled_from(BENTOS), supersede=st.booleans())
    def start(self, bento: str, supersede: bool) -> None:
        self.releases += 1
        self._if_allowed(lambda: self.world.start(bento, f"r{self.releases}", supersede=supersede))

    @rule(command=st.sampled_from(COMMANDS))
    def command(self, command: Command) -> None:
        self._if_allowed(lambda: self.world.command(command))

    @rule(source=st.sampled_from([good, good, good, bad, silent, raising, nothing]))
    def evidence(self, source: Any) -> None:
        self.world.evidence = source

    @rule(seconds=st.sampled_from([-3600.0, -1.0, 0.0, 0.25, 1.0, 6.0, 61.0, 61.0, 500.0]), n=st.integers(1, 4))
    def tick(self, seconds: float, n: int) -> None:
        for _ in range(n):
            self.world.now_us += int(seconds * SECOND)
            try:
                self.world.controller.tick()
            except Died:
                self.world.fate.dies_at = None
                self.world.controller = self.world.new_controller()

    @rule(calls=st.integers(1, 12), after=st.booleans())
    def it_will_die(self, calls: int, after: bool) -> None:
        self.world.fate.dies_at = (len(self.world.fate.calls) + calls, after)

    @rule()
    def another_takes_its_turn(self) -> None:
        try:
            self.other.tick()
        except Died:
            self.world.fate.dies_at = None
            self.other = self.world.new_controller("other again")

    @rule(bento=st.sampled_from(BENTOS), down=st.booleans())
    def readiness(self, bento: str, down: bool) -> None:
        (self.world.probe.down.add if down else self.world.probe.down.discard)(bento)

    @rule(full=st.booleans(), away=st.booleans())
    def faults(self, full: bool, away: bool) -> None:
        self.full = full
        self.world.driver.away = away

    @rule(calls=st.integers(1, 6))
    def the_database_fails_in_the_middle(self, calls: int) -> None:
        store, left = self.world.store, calls

        def failing(name: str) -> Callable[..., Any]:
            call = getattr(store, name)

            def made(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                left -= 1
                if left <= 0:
                    raise Unreachable("the control database does not answer")
                return call(*args, **kwargs)

            return made

        names = ("load", "commit", "acquire")
        before = {name: getattr(store, name) for name in names}
        for name in names:
            setattr(store, name, failing(name))
        try:
            self.tick(1.0, 2)
        finally:
            for name in names:
                setattr(store, name, before[name])

    @rule()
    def break_glass(self) -> None:
        table = self.world.writer.last()
        if table and table.champion and table.release:
            order = BreakGlass(
                id=f"glass-{self.releases}-{table.version}",
                champion=Target(bento=table.champion.bento, rules=table.champion.rules),
                actor="local:root",
                reason="it burns",
                written_at="",
            )
            self.world.writer.order = order

    @invariant()
    def one_champion_and_nothing_torn(self) -> None:
        assert invariants(self.world.state) == []
        versions = [(t.epoch, t.version) for t in self.world.writer.tables]
        assert versions == sorted(set(versions))

    def teardown(self) -> None:
        world = self.world
        self.full = world.driver.away = False
        world.probe.down.clear()
        world.fate.dies_at = None
        world.evidence = silent
        world.now_us = max(world.now_us, world.state.seen_us) + 10 * SECOND
        for _ in range(10):
            tick = world.tick(6.0)
        assert "control database" not in tick.problems
        state, table = world.state, world.writer.last()
        assert table is not None
        assert table.champion == state.champion
        order = world.writer.order
        assert order is None or order.id in table.adopted
        step = state.release.current if state.release and state.release.active else None
        weight = step.weight if step and step.kind != "shadow" else 0
        assert world.weight() == weight
        assert set(state.live) <= set(world.driver.up)

    @staticmethod
    def _if_allowed(call: Callable[[], Any]) -> None:
        with contextlib.suppress(Refused, Conflict):
            call()


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)
