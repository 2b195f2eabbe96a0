"""Each step of a tick, and each way in which it can fail."""

import time
from typing import Any

import pytest

from contracts.errors import Unreachable
from contracts.measurements import Snapshot
from contracts.routing import BreakGlass, RoutingTable, Target
from registry.controller import LINGER_S
from registry.readiness import Readiness
from registry.releases.policy import Policy, Step
from registry.releases.values import Pause, Promote, Release, Resume, Rollback
from tests.unit.registry.controller.world import BEGIN_US, NEW, OLD, POLICY, SECOND, World, bad, good


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def canary(world: World) -> World:
    """A release of NEW against OLD at 5 %."""
    world.first_champion()
    world.start(NEW, "second")
    world.until(lambda: world.weight() == 5)
    return world


def test_the_first_bento_is_champion_after_its_smoke_test(world: World) -> None:
    world.start(OLD, "first")
    world.probe.down.add(OLD)
    world.until(lambda: world.now_us > BEGIN_US + 5 * SECOND)
    assert world.state.champion is None
    world.probe.down.clear()
    world.tick()
    assert world.state.champion == Target(bento=OLD)
    assert world.routed() == OLD
    assert world.aliases.wanted[-1] == (OLD, None)


def test_a_failed_smoke_test_is_reported_and_nobody_becomes_champion(world: World) -> None:
    world.probe.broken[OLD] = ("k 10: no item",)
    world.start(OLD, "first")
    assert "no item" in world.tick().problems["smoke test"]
    assert world.state.champion is None
    world.probe.broken.clear()
    world.tick()
    assert world.state.champion == Target(bento=OLD)


def test_good_evidence_takes_a_candidate_through_all_steps_to_champion(world: World) -> None:
    world.first_champion()
    world.start(NEW, "second")
    seen = []

    def done() -> bool:
        seen.append(world.weight())
        return world.routed() == NEW

    world.until(done)
    assert list(dict.fromkeys(seen)) == [0, 5, 50]
    assert world.aliases.wanted == [(OLD, None), (OLD, NEW), (NEW, None)]
    assert world.release.state == "promoted"


def test_a_decision_is_committed_and_in_the_table_in_one_tick(canary: World) -> None:
    canary.evidence = bad
    canary.now_us += SECOND
    tick = canary.tick()
    assert canary.release.state == "rolled_back"
    assert tick.wrote is not None
    assert tick.wrote.release is None
    assert canary.routed() == OLD
    entry = canary.store.history("second")[-1]
    assert entry.action == "release.rollback"
    assert entry.actor == "controller"
    assert entry.detail["evidence"]["metrics"]["errors"]["value"] == 0.5
    assert entry.detail["verdicts"][0]["verdict"] == "fail"
    assert entry.detail["policy_sha256"] == "0" * 64
    assert entry.detail["reason"]


def test_a_failed_critical_guardrail_rolls_back_while_paused_too(canary: World) -> None:
    canary.command(Pause())
    canary.tick()
    canary.evidence = bad
    canary.until(lambda: canary.release.state == "rolled_back", 5)


def test_a_paused_release_keeps_its_weight_and_goes_no_further(canary: World) -> None:
    canary.command(Pause())
    canary.until(lambda: canary.now_us > BEGIN_US + 1800 * SECOND)
    assert canary.release.state == "paused"
    assert canary.weight() == 5
    canary.command(Resume())
    canary.until(lambda: canary.weight() == 50)


def test_a_command_is_in_the_table_after_the_next_tick(canary: World) -> None:
    canary.command(Rollback())
    assert canary.tick(0.25).wrote is not None
    assert canary.weight() == 0


def raising(_: Release, __: int) -> Snapshot | None:
    raise OSError("no such folder")


def nothing(_: Release, __: int) -> Snapshot | None:
    return None


def silent(release: Release, now_us: int) -> Snapshot | None:
    return Snapshot(release=release.id, step=release.step, taken_us=now_us, since_us=release.since_us)


@pytest.mark.parametrize("source", [raising, nothing, silent])
def test_evidence_that_cannot_be_had_is_no_pass(canary: World, source: Any) -> None:
    canary.evidence = source
    canary.until(lambda: canary.now_us > BEGIN_US + 1800 * SECOND)
    assert canary.weight() == 5
    assert canary.release.state == "canary"


def test_evidence_that_fails_is_reported(canary: World) -> None:
    canary.evidence = raising
    assert "no such folder" in canary.tick(1.0).problems["evidence"]


def test_a_look_at_a_step_that_is_over_counts_for_nothing(canary: World) -> None:
    stale = bad(canary.release, canary.now_us).model_copy(update={"step": 0})
    canary.evidence = lambda release, now_us: stale
    canary.until(lambda: canary.now_us > BEGIN_US + 600 * SECOND)
    assert canary.release.state == "canary"


def test_an_unready_candidate_gets_no_weight_and_again_the_same_when_it_is_back(canary: World) -> None:
    canary.probe.down.add(NEW)
    canary.tick()
    assert canary.weight() == 0
    assert NEW not in canary.writer.last().bentos
    canary.probe.down.clear()
    canary.tick()
    assert canary.weight() == 5


def test_a_champion_that_stops_answering_keeps_its_address(canary: World) -> None:
    """There is nobody else to send users to, and gateways look for themselves."""
    before = canary.writer.last().bentos[OLD]
    canary.probe.down.add(OLD)
    assert OLD in canary.tick().problems
    assert canary.writer.last().bentos[OLD] == before


def test_a_table_is_written_only_when_another_follows_and_versions_only_grow(canary: World) -> None:
    count = len(canary.writer.tables)
    for _ in range(20):
        canary.tick(0.01)
    assert len(canary.writer.tables) == count
    versions = [(t.epoch, t.version) for t in canary.writer.tables]
    assert versions == sorted(set(versions))


def test_a_disk_that_is_full_is_reported_and_the_write_tried_again(canary: World) -> None:
    write = canary.writer.write

    def full(table: RoutingTable) -> None:
        raise OSError(28, "No space left on device")

    canary.writer.write = full
    canary.evidence = bad
    tick = canary.tick(1.0)
    assert "No space left" in tick.problems["routing table"]
    assert canary.release.state == "rolled_back"  # the database is the truth
    assert NEW in canary.driver.up  # gateways still send users to it
    canary.until(lambda: canary.now_us > BEGIN_US + 600 * SECOND)
    assert NEW in canary.driver.up
    canary.writer.write = write
    canary.tick()
    assert canary.weight() == 0


def test_a_bento_stays_up_while_gateways_may_still_send_it_requests(canary: World) -> None:
    canary.command(Rollback())
    canary.tick()
    canary.tick(LINGER_S - 1)
    assert NEW in canary.driver.up
    canary.tick(2)
    assert canary.driver.up == (OLD,)


def test_a_driver_that_is_away_does_not_stop_a_rollback(canary: World) -> None:
    canary.driver.away = True
    canary.evidence = bad
    tick = canary.tick(1.0)
    assert "supervisor" in tick.problems["driver"]
    assert canary.weight() == 0


def test_with_the_database_away_the_last_table_stays_and_nothing_is_written(canary: World) -> None:
    load, acquire, count = canary.store.load, canary.store.acquire, len(canary.writer.tables)

    def away(*_: Any) -> Any:
        raise Unreachable("the control database does not answer")

    canary.store.load = canary.store.acquire = away
    canary.probe.down.add(NEW)
    for _ in range(40):
        assert "control database" in canary.tick().problems
    assert len(canary.writer.tables) == count
    canary.store.load, canary.store.acquire = load, acquire
    canary.tick(1.0)
    assert canary.weight() == 0


def test_the_old_champion_cools_when_its_time_is_over(world: World) -> None:
    world.first_champion()
    world.start(NEW, "second")
    world.until(lambda: world.routed() == NEW)
    assert OLD in world.driver.up
    world.tick(300)
    assert OLD in world.driver.up
    world.tick(100)
    assert world.state.warm == ()
    world.tick(LINGER_S + 1)
    world.tick(LINGER_S + 1)
    assert world.driver.up == (NEW,)
    assert world.store.history()[-1].action == "release.cool"


def test_a_promoted_release_can_be_rolled_back_while_the_old_one_is_warm(world: World) -> None:
    world.first_champion()
    world.start(NEW, "second")
    world.until(lambda: world.routed() == NEW)
    world.command(Rollback())
    world.tick()
    assert world.routed() == OLD


def test_a_second_controller_stands_by_and_takes_over_when_the_lease_runs_out(canary: World) -> None:
    second = canary.new_controller("second")
    assert not second.tick().leading
    first_epoch = canary.writer.last().epoch
    canary.now_us += 2 * SECOND
    assert not second.tick().leading
    canary.now_us += 4 * SECOND
    tick = second.tick()
    assert tick.leading
    assert tick.wrote is not None  # at once: it fences the first one's tables
    assert tick.wrote.epoch > first_epoch
    assert not canary.controller.tick().leading


def test_a_controller_that_takes_over_moves_no_user_before_it_has_looked(canary: World) -> None:
    look = canary.probe.look
    canary.probe.look = lambda upstreams: Readiness({}, {}, frozenset(upstreams))  # type: ignore[method-assign]
    canary.controller.stop()
    canary.controller = canary.new_controller()
    assert canary.tick().wrote is not None
    assert canary.weight() == 5
    canary.probe.look = look  # type: ignore[method-assign]
    canary.probe.down.add(NEW)
    canary.tick()
    assert canary.weight() == 0


def test_a_lease_that_was_given_back_is_taken_at_once(canary: World) -> None:
    canary.controller.stop()
    canary.now_us += SECOND
    assert canary.new_controller("second").tick().leading


def test_a_controller_that_slept_through_its_lease_commits_and_writes_nothing(canary: World) -> None:
    second = canary.new_controller("second")
    count = 0

    def sleeps(release: Release, now_us: int) -> Snapshot:
        nonlocal count
        canary.evidence = good
        canary.now_us += 10 * SECOND
        second.tick()
        count = len(canary.writer.tables)
        return bad(release, now_us)

    canary.evidence = sleeps
    canary.tick(1.0)
    assert len(canary.writer.tables) == count > 0
    assert canary.release.state == "canary"
    assert not canary.tick(1.0).leading


def test_a_clock_that_jumps_back_stops_neither_lease_nor_evidence(canary: World) -> None:
    canary.now_us -= 3600 * SECOND
    assert canary.tick().leading
    canary.evidence = bad
    canary.until(lambda: canary.release.state == "rolled_back", 5)
    assert canary.weight() == 0


def test_a_state_that_moved_meanwhile_is_read_again_and_nothing_is_done_twice(canary: World) -> None:
    def pauses_meanwhile(release: Release, now_us: int) -> Snapshot:
        canary.evidence = good
        canary.command(Pause())
        return bad(release, now_us)

    canary.evidence = pauses_meanwhile
    tick = canary.tick(1.0)
    assert canary.release.state == "paused"
    assert any("next round" in line for line in tick.done)
    canary.evidence = bad
    canary.until(lambda: canary.release.state == "rolled_back", 5)


def test_a_table_that_someone_removed_or_replaced_is_written_again(canary: World) -> None:
    table = canary.writer.last()
    canary.writer.tables.append(table.model_copy(update={"champion": Target(bento=NEW), "release": None}))
    canary.until(lambda: canary.weight() == 5, 5)
    assert canary.routed() == OLD


def test_a_table_that_was_removed_comes_back_with_a_greater_version(canary: World) -> None:
    before = canary.writer.last()
    canary.writer.tables.clear()
    canary.until(lambda: canary.writer.tables, 5)
    assert (canary.writer.last().epoch, canary.writer.last().version) == (before.epoch, before.version + 1)


def test_a_database_older_than_the_table_ends_nothing_that_is_served(canary: World) -> None:
    from registry.control.memory import MemoryStore

    count = len(canary.writer.tables)
    canary.store = MemoryStore()
    canary.controller = canary.new_controller()
    for _ in range(20):
        tick = canary.tick()
    assert "older" in tick.problems["routing table"]
    assert len(canary.writer.tables) == count


def order(champion: str, id_: str = "glass-1") -> BreakGlass:
    return BreakGlass(id=id_, champion=Target(bento=champion), actor="local:root", reason="it burns", written_at="")


def test_a_break_glass_order_becomes_a_rollback_once(canary: World) -> None:
    canary.writer.order = order(OLD)
    for _ in range(10):
        canary.tick()
    assert canary.release.state == "rolled_back"
    assert "it burns" in canary.release.reason
    assert canary.writer.last().adopted == ("glass-1",)
    assert canary.weight() == 0
    assert [action for action, _ in canary.steps()].count("release.adopt") == 1


def test_an_order_made_before_a_promotion_was_routed_undoes_the_promotion(canary: World) -> None:
    canary.command(Promote(force=True))
    canary.writer.order = order(OLD)
    canary.tick()
    assert canary.state.champion == Target(bento=OLD)
    assert canary.routed() == OLD


def test_an_order_for_a_champion_nobody_remembers_puts_it_back(canary: World) -> None:
    canary.writer.order = order("streamrec:older")
    canary.tick()
    assert canary.state.champion == Target(bento="streamrec:older")
    assert not (canary.state.release and canary.state.release.active)


def test_an_order_that_is_adopted_does_not_end_later_releases(canary: World) -> None:
    canary.writer.order = order(OLD)
    canary.tick()
    canary.start("streamrec:third", "third")
    canary.until(lambda: canary.weight() == 5)


def test_an_order_that_names_unknown_rules_stays_in_force(canary: World) -> None:
    canary.writer.order = order(OLD).model_copy(update={"champion": Target(bento=OLD, rules="x@1")})
    tick = canary.tick()
    assert "x@1" in str(tick.problems)
    assert canary.state.adopted == ()


def test_verdicts_that_change_are_noted_but_not_at_every_look(canary: World) -> None:
    flip = iter(range(10**6))
    canary.evidence = lambda release, now_us: (good, silent)[next(flip) % 2](release, now_us)
    canary.command(Pause())
    before = canary.now_us
    canary.until(lambda: canary.now_us > before + 600 * SECOND)
    notes = [e for e in canary.store.history() if e.action == "release.note" and e.at_us > before]
    assert 1 <= len(notes) <= 11


def test_a_fault_in_a_step_does_not_end_the_process(canary: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.controller.decide", lambda *_: 1 / 0)
    assert "ZeroDivisionError" in canary.tick(1.0).problems["gates"]
    canary.probe.down.add(NEW)
    canary.tick(1.0)
    assert canary.weight() == 0  # and does not hold up the table
    canary.probe.down.clear()
    monkeypatch.undo()
    canary.evidence = bad
    canary.until(lambda: canary.release.state == "rolled_back", 5)


def test_status_is_told_what_it_wants_to_know(world: World) -> None:
    told: list[dict[str, Any]] = []
    world.controller = world.new_controller(report=told.append)
    world.first_champion()
    world.start(NEW, "second")
    world.until(lambda: world.weight() == 5)
    world.tick(1.0)
    last = told[-1]
    assert last["evidence"]["release"] == "second"
    assert last["next"]
    assert set(last["ready"]) == {OLD, NEW}
    assert last["holder"] == "controller-2"


def test_a_round_without_news_is_cheap(canary: World) -> None:
    """A simulation runs 10⁵ of them. 2 ms is ten times what it takes: the machine is shared."""
    canary.command(Pause())
    canary.tick()
    began = time.process_time()
    for _ in range(200):
        canary.tick(0.001)
    assert (time.process_time() - began) / 200 < 0.002


def test_a_manual_policy_waits_for_commands(world: World) -> None:
    manual = Policy.model_validate({**POLICY.model_dump(), "advance": "manual", "steps": [
        Step(kind="canary", weight=5, metrics=("errors",), least_minutes=0).model_dump()]})  # fmt: skip
    world.first_champion()
    world.start(NEW, "second", manual)
    world.until(lambda: world.now_us > BEGIN_US + 1800 * SECOND)
    assert world.release.state == "created"
    assert world.weight() == 0
