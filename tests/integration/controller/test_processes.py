"""Real processes, real sockets, SQLite: what holds when they die, stall and lose their database."""

import os
import random
import signal
import time

import httpx
import psutil
import pytest

from contracts.routing import Target
from registry.releases import commands
from registry.releases.status import read_report
from tests.integration.controller.conftest import NEW, OLD, Stack, until

TTL_S = 5.0


def test_a_command_is_in_the_routing_table_within_two_seconds(stack: Stack) -> None:
    stack.controller()
    stack.first_champion()
    assert stack.upstreams[OLD].calls  # the smoke test
    stack.canary()
    began = time.monotonic()
    stack.run(commands.rollback, reason="a test")
    until(lambda: stack.routed() == (OLD, 0), "the rollback is routed", 2)
    assert time.monotonic() - began < 2


def test_when_the_leader_is_killed_the_other_takes_over_and_goes_on(stack: Stack) -> None:
    stack.controller()
    stack.controller()
    stack.first_champion()
    stack.canary()
    leader = until(stack.leader, "one leads")
    dead = next(p for p in stack.controllers if p.pid == leader)
    before = stack.table()
    assert before is not None
    stack.kill(dead)
    began = time.monotonic()
    until(lambda: stack.leader() not in (None, leader), "the other leads", 2 * TTL_S)
    assert time.monotonic() - began < TTL_S + 2
    after = until(lambda: (t := stack.table()) and t.epoch > before.epoch and t, "it has written its own table")
    assert (after.champion, after.release) == (before.champion, before.release)
    stack.run(commands.rollback)
    until(lambda: stack.routed() == (OLD, 0), "the new leader obeys")
    assert not stack.store.verify()


def test_sigterm_ends_it_cleanly_and_hands_the_lease_over_at_once(stack: Stack) -> None:
    first = stack.controller()
    stack.first_champion()
    second = stack.controller()
    until(lambda: stack.log().count("driver static") == 2, "the second is up")
    first.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert first.wait(5) == 0
    until(lambda: stack.leader() == second.pid, "the second leads", TTL_S)
    assert time.monotonic() - began < TTL_S - 1


def test_a_leader_that_was_stopped_and_wakes_after_its_lease_changes_nothing(stack: Stack) -> None:
    stack.controller()
    stack.first_champion()
    leader = until(stack.leader, "one leads")
    second = stack.controller()
    os.kill(leader, signal.SIGSTOP)
    until(lambda: stack.leader() == second.pid, "the other leads", 3 * TTL_S)
    table = until(lambda: (t := stack.table()) and t.epoch > 1 and t, "the other has written")
    os.kill(leader, signal.SIGCONT)
    until(lambda: "another leads" in stack.log(), "the first has seen it")
    now = stack.table()
    assert now is not None
    assert now.epoch == table.epoch


def test_an_unreadable_database_leaves_the_table_and_the_controller_recovers(stack: Stack) -> None:
    process = stack.controller()
    stack.first_champion()
    stack.canary()
    before = stack.table()
    folder = stack.home / "control"
    aside = stack.home / "aside.db"
    (folder / "control.db").rename(aside)  # even root cannot read what is a folder
    (folder / "control.db").mkdir()
    until(lambda: "control database" in stack.log(), "it says that the database is away")
    assert process.poll() is None
    assert stack.table() == before
    (folder / "control.db").rmdir()
    aside.rename(folder / "control.db")
    until(lambda: "control database: well again" in stack.log(), "it is back", 2 * TTL_S)
    stack.run(commands.rollback)
    until(lambda: stack.routed() == (OLD, 0), "commands are obeyed again")


def test_break_glass_works_with_controller_and_database_gone_and_is_adopted_later(stack: Stack) -> None:
    process = stack.controller()
    stack.first_champion()
    stack.canary()
    stack.kill(process)
    database = stack.home / "control" / "control.db"
    aside = stack.home / "aside.db"
    database.rename(aside)
    result = commands.break_glass(stack.settings, reason="it burns", now_us=time.time_ns() // 1000, actor="local:test")
    assert result.state.champion is not None
    assert result.state.champion.bento == OLD
    aside.rename(database)
    stack.controller()
    until(lambda: (t := stack.table()) and result.more["order"] in t.adopted, "the order is adopted", 3 * TTL_S)
    assert stack.routed() == (OLD, 0)
    state = stack.store.load()
    assert state.release is not None
    assert state.release.state == "rolled_back"
    assert "it burns" in state.release.reason
    assert not stack.store.verify()


def test_a_candidate_that_dies_loses_its_weight(stack: Stack) -> None:
    stack.controller()
    stack.first_champion()
    stack.canary()
    stack.upstreams[NEW].status = "unavailable"
    until(lambda: stack.routed() == (OLD, 0), "no weight for the unready", 5)
    stack.upstreams[NEW].status = "ready"
    until(lambda: stack.routed() == (OLD, 5), "and again when it is back", 5)


def test_status_and_http_say_what_is_going_on(stack: Stack) -> None:
    stack.controller()
    stack.first_champion()
    stack.canary()
    url = until(lambda: read_report(stack.home).get("url"), "the interface is open")
    assert httpx.get(f"{url}/livez").status_code == 200
    assert httpx.get(f"{url}/readyz").json()["status"] == "ready"
    assert httpx.get(f"{url}/v1/releases").status_code == 401
    document = commands.status(stack.store, stack.settings, now_us=time.time_ns() // 1000)
    assert document["champion"] == OLD
    assert document["controller"]["epoch"] == 1
    assert document["releases"][0]["weight"] == 5
    assert document["releases"][0]["candidate"] == NEW


@pytest.mark.slow
def test_a_controller_takes_little_of_a_core(stack: Stack) -> None:
    process = stack.controller()
    stack.first_champion()
    watched = psutil.Process(process.pid)
    until(lambda: not watched.children(), "the aliases are seen to")
    idle = share_of_a_core(watched)
    stack.canary()
    busy = share_of_a_core(watched)
    print(f"idle {100 * idle:.1f} %, with a release {100 * busy:.1f} %, {watched.memory_info().rss / 1e6:.0f} MB")
    assert idle < 0.05
    assert busy < 0.10


def share_of_a_core(process: psutil.Process) -> float:
    began, before = time.monotonic(), process.cpu_times()
    time.sleep(8)  # what is measured is a time
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / (time.monotonic() - began)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_where_an_undisturbed_one_does(stack: Stack) -> None:
    """Twelve kills at seeded moments after a command; each command is in the audit once and the table agrees."""
    chance = random.Random(20)  # noqa: S311 — moments, not secrets
    process = stack.controller()
    stack.first_champion()
    expected = []
    for n in range(12):
        if n % 2 == 0:
            stack.run(commands.start, tag=NEW, policy="by-hand")
            stack.run(commands.canary)
            expected += ["release.start", "release.go"]
        else:
            stack.run(commands.rollback)
            expected += ["release.rollback"]
        time.sleep(chance.uniform(0, 0.6))  # the moment is what is tried
        stack.kill(process)
        process = stack.controller()
    until(lambda: stack.routed() == (OLD, 0), "the last rollback is routed", 4 * TTL_S)
    actions = [e.action for e in stack.store.history() if e.action != "release.note"]
    assert actions == ["release.start", "release.promote", *expected]
    assert not stack.store.verify()
    assert stack.store.load().champion == Target(bento=OLD)
