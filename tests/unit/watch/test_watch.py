"""The watch loses no alert and sends none twice, wherever it is killed; and a check that crashes is no silence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Refused
from contracts.settings import Settings
from monitoring.alerts.channels.base import SEND_S
from monitoring.alerts.grouping import HOUR_US
from monitoring.alerts.outbox import REFUSED_TRIES
from monitoring.signals import Signal, Verdict
from monitoring.watch.metrics import WatchMetrics
from monitoring.watch.running import Job
from monitoring.watch.schema import read_schema, schema_path
from monitoring.watch.state import DOCUMENT, state_from
from monitoring.watch.watch import LEASE_S
from registry.control.documents import MemoryDocuments, SqlDocuments
from registry.control.sql import control_store
from registry.control.store import Lease
from tests.unit.watch.world import BEGIN_US, BENTO, SCHEMA, PlayedChannel, World, minute, row, signal


def drifts(job: Job) -> Sequence[Signal]:
    verdict = "breach" if minute(0) <= job.at_us < minute(60) else "ok"
    return [signal("drift.severity", verdict, job.at_us)] if job.check == "drift" else []


def test_trouble_is_told_once_and_its_end_once():
    world = World(drifts)
    world.minutes(50)
    assert world.kinds == ["raised"]
    world.minutes(60)
    assert world.kinds == ["raised", "recovered"]
    told = world.channel.told[0]
    assert (told.criticality, told.owner, told.runbook) == ("ticket", "ranking", "docs/runbooks/drift.md")
    assert told.alert == world.channel.told[1].alert


def test_the_same_watch_on_the_real_store(tmp_path: Path):
    world = World(drifts, documents=SqlDocuments(control_store(Settings(home=tmp_path))))
    world.minutes(20, step_s=120)
    world.restart("second")
    world.now_us += 16_000_000  # the first one's lease runs out
    world.minutes(100, step_s=120)
    assert world.kinds == ["raised", "recovered"]


class Killed(Exception):
    """Of no class that the watch knows: as good as a kill."""


class KilledAt(MemoryDocuments):
    """Dies before or after the nth write."""

    def __init__(self, n: int, before: bool) -> None:
        super().__init__()
        self.n, self.before, self.writes = n, before, 0

    def write(self, name: str, version: int, document: dict[str, Any], lease: Lease | None = None) -> int:
        self.writes += 1
        if self.writes == self.n and self.before:
            raise Killed
        done = super().write(name, version, document, lease)
        if self.writes == self.n:
            raise Killed
        return done


class DyingChannel(PlayedChannel):
    """Dies before or after it has told its nth message."""

    at, before, tries = 0, False, 0

    def send(self, message: Any) -> None:
        self.tries += 1
        if self.tries == self.at and self.before:
            raise Killed
        super().send(message)
        if self.tries == self.at:
            raise Killed


def through_kills(world: World, minutes: int) -> int:
    """Run on, restarted whenever it is killed; how often that was."""
    killed = 0
    end_us = world.now_us + minutes * 60_000_000
    while world.now_us < end_us:
        try:
            world.watch.tick()
        except Killed:
            killed += 1
            world.restart(f"again-{killed}")
            world.now_us += 16_000_000
        world.now_us += 30_000_000
    return killed


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13, 20, 21, 22, 23, 24, 25, 26])
def test_a_kill_at_any_write_loses_no_alert_and_tells_none_twice(n: int, before: bool):
    documents = KilledAt(n, before)
    world = World(drifts, documents=documents)
    assert through_kills(world, 120) == 1
    assert world.kinds == ["raised", "recovered"]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_while_telling_tells_again_by_the_same_key(at: int, before: bool):
    channel = DyingChannel()
    channel.at, channel.before = at, before
    world = World(drifts, channel=channel)
    assert through_kills(world, 120) == 1
    assert world.kinds == ["raised", "recovered"]
    assert channel.sends == 2 + (not before)


def test_a_channel_that_is_away_is_tried_again_and_gets_all_in_order():
    world = World(drifts)
    world.channel.down = True
    problems = [world.minutes(1).problems for _ in range(100)]
    assert any("channel played" in found for found in problems)
    assert world.kinds == []
    world.channel.down = False
    world.minutes(61)
    assert world.kinds == ["raised", "recovered"]


def test_a_check_that_crashes_is_inconclusive_and_then_an_alert_of_its_own():
    world = World(lambda job: "was ended by SIGSEGV" if job.check == "drift" else [])
    world.minutes(6)
    signals = {s.name: s for s in state_from(world.documents.read(DOCUMENT)[1]).signals}
    assert signals["run.check.drift"].verdict == "inconclusive"
    assert "SIGSEGV" in signals["run.check.drift"].cause
    world.minutes(30)
    assert world.kinds == ["raised"]
    assert world.channel.told[0].signals[0]["name"] == "run.check.drift"


def test_a_crash_makes_what_the_check_had_said_unknown_and_ends_no_alert():
    def says(job: Job) -> Sequence[Signal] | str:
        if job.check != "drift":
            return []
        return drifts(job) if job.at_us < minute(20) else "ended with 1"

    world = World(says)
    world.minutes(19)
    assert world.kinds == ["raised"]
    world.minutes(120)
    state = state_from(world.documents.read(DOCUMENT)[1])
    assert {s.name: s.verdict for s in state.signals}["drift.severity"] == "inconclusive"
    assert "recovered" not in world.kinds


def test_what_a_check_names_only_while_it_is_not_well_is_over_when_it_is_not_named():
    def says(job: Job) -> Sequence[Signal]:
        if job.check != "drift":
            return []
        bad = job.at_us < minute(30)
        kind = signal("drift.input", "breach" if bad else "ok", job.at_us)
        return [kind, signal("drift.input.price", "breach", job.at_us)] if bad else [kind]

    world = World(says)
    world.minutes(100)
    assert world.kinds == ["raised", "recovered"]


def test_an_alert_of_a_model_that_serves_no_more_ends():
    world = World(lambda job: [signal("drift.severity", "breach", job.at_us)] if job.check == "drift" else [])
    world.minutes(20)
    assert world.kinds == ["raised"]
    world.live = type(world.live)(("streamrec:b",), "", {"streamrec:b": "streamrec-ranking/2"})
    world.minutes(40)
    assert world.kinds == ["raised", "recovered"]


def test_two_watches_one_leads_and_the_other_takes_over_when_it_is_gone():
    world = World(drifts)
    first = world.watch
    assert first.tick().leading
    world.restart("second")
    assert not world.watch.tick().leading
    world.now_us += 10_000_000
    assert first.tick().leading
    first.stop()
    world.now_us += 10_000_000
    assert world.watch.tick().leading


def test_a_watch_that_lost_its_lease_writes_nothing():
    world = World(drifts)
    first, runner = world.watch, world.runner
    first.tick()
    assert isinstance(world.documents, MemoryDocuments)
    world.documents.held = Lease("other", 2, world.now_us + 60_000_000)
    before = dict(world.documents.kept)
    world.now_us += 5_000_000
    assert not first.tick().leading
    assert world.documents.kept == before
    assert runner.started


def test_checks_run_on_their_own_frequency_and_survive_a_clock_that_is_put_back():
    world = World(drifts)
    world.minutes(20, step_s=10)
    looks = [job.check for job in world.runner.started]
    assert 19 <= looks.count("levels") <= 21
    assert 4 <= looks.count("drift") <= 5
    world.now_us -= 3_600_000_000
    world.restart("after")
    world.minutes(1)
    assert any(job.check == "drift" for job in world.runner.started)


def test_kept_alerts_that_cannot_be_read_begin_anew_and_say_so():
    documents = MemoryDocuments()
    documents.write(DOCUMENT, 0, {"alerts": [{"of": "another version"}]})
    world = World(drifts, documents=documents)
    tick = world.watch.tick()
    assert "begin anew" in tick.problems["state"]
    world.minutes(20)
    assert world.kinds == ["raised"]
    assert world.now_us > BEGIN_US
    assert BENTO in world.live.bentos


def test_a_breach_that_goes_on_began_when_it_did_though_the_window_of_its_check_moves_on():
    def says(job: Job) -> Sequence[Signal]:
        window_us = job.at_us - 10 * 60_000_000  # all of it is shifted, so that the check knows of nothing before
        return [signal("drift.severity", "breach", job.at_us, since=window_us)] if job.check == "drift" else []

    world = World(says)
    world.minutes(60)
    (found,) = (s for s in state_from(world.documents.read(DOCUMENT)[1]).signals if s.name == "drift.severity")
    assert found.at >= minute(55)
    assert found.since == minute(-10)


def test_a_crash_of_a_bento_s_check_makes_unknown_what_it_said_of_that_bento_s_ranker():
    watched = row("skew.*", "skew")

    def says(job: Job) -> Sequence[Signal] | str:
        if job.check != "skew":
            return []
        return "ended with 1" if job.at_us >= minute(10) else [signal("skew.whole", "ok", job.at_us)]

    world = World(says, schema=SCHEMA.model_copy(update={"signals": (watched, *SCHEMA.signals)}))
    world.minutes(8)
    assert verdict_of(world, "skew.whole") == "ok"
    world.minutes(8)
    assert verdict_of(world, "skew.whole") == "inconclusive"


def verdict_of(world: World, name: str) -> str:
    return next(s.verdict for s in state_from(world.documents.read(DOCUMENT)[1]).signals if s.name == name)


SHIPPED = read_schema(schema_path(Path("no-home")))


def shipped(*verdicts: Verdict) -> World:
    """By the schema as it is shipped: drift is looked at once an hour, and says of a window of a day."""

    def says(job: Job) -> Sequence[Signal]:
        if job.check != "drift":
            return []
        n = (job.at_us - BEGIN_US) // HOUR_US
        verdict = verdicts[n] if n < len(verdicts) else "ok"
        return [signal("drift.severity", verdict, job.at_us, since=job.at_us - 24 * HOUR_US)]

    return World(says, schema=SHIPPED)


def test_by_the_shipped_schema_one_false_look_calls_nobody_and_trains_nothing():
    world = shipped("ok", "breach", "ok")
    world.minutes(4 * 60, step_s=60)
    assert world.kinds == []
    assert world.trainings == []


def test_by_the_shipped_schema_two_looks_raise_and_train_and_two_more_end_it():
    world = shipped("breach", "breach")
    world.minutes(59, step_s=60)
    assert (world.kinds, world.trainings) == ([], [])
    world.minutes(16, step_s=60)
    assert world.kinds == ["raised"]
    assert world.trainings
    world.minutes(105, step_s=60)  # past one look that is well, and `clear_minutes`
    assert world.kinds == ["raised"]
    world.minutes(30, step_s=60)
    assert world.kinds == ["raised", "recovered"]


def test_a_check_that_saw_nobody_makes_what_it_had_said_unknown():
    def says(job: Job) -> Sequence[Signal]:
        if job.check != "drift":
            return []
        if job.at_us < minute(20):
            return [signal("drift.severity", "breach", job.at_us)]
        return [signal("drift.window", "inconclusive", job.at_us, "")]

    world = World(says)
    world.minutes(30)
    assert verdict_of(world, "drift.severity") == "inconclusive"
    assert world.kinds == ["raised"]


def test_single_features_of_a_skew_that_cannot_be_told_are_unknown_and_not_well():
    watched = row("skew.*", "skew")

    def says(job: Job) -> Sequence[Signal]:
        if job.check != "skew":
            return []
        if job.at_us < minute(10):
            return [signal(n, "breach", job.at_us) for n in ("skew.whole", "skew.rows.price")]
        return [signal("skew.whole", "inconclusive", job.at_us)]

    world = World(says, schema=SCHEMA.model_copy(update={"signals": (watched, *SCHEMA.signals)}))
    world.minutes(16)
    assert verdict_of(world, "skew.rows.price") == "inconclusive"


def burns(job: Job) -> Sequence[Signal]:
    """Late features from the start, and from minute 5 on an error budget that burns at a page's rate."""
    if job.check != "levels":
        return []
    late = signal("level.streaming_features", "breach", job.at_us, "")
    fast = signal("level.availability", "breach", job.at_us, "", details={"severity": "page"})
    return [late, fast] if job.at_us >= minute(5) else [late]


def test_a_page_is_told_though_a_ticket_of_the_service_is_open():
    world = World(burns, schema=SHIPPED)
    world.minutes(10)
    told = world.channel.told
    assert [(m.kind, m.criticality) for m in told] == [("raised", "ticket"), ("widened", "page")]
    assert [(m.owner, m.runbook) for m in told] == [
        ("data", "docs/runbooks/streaming-features-late.md"),
        ("serving", "docs/runbooks/availability.md"),
    ]
    metrics = WatchMetrics()
    metrics.show(world.watch.tick(), SHIPPED, world.now_us)
    (alert,) = next(f for f in metrics.registry.collect() if f.name == "streamrec_alerts").samples
    assert (alert.labels["severity"], alert.labels["owner"]) == ("page", "serving")


class RefusingChannel(PlayedChannel):
    """It will not have what is about late features."""

    tries = 0

    def send(self, message: Any) -> None:
        if "streaming_features" in message.text:
            self.tries += 1
            raise Refused("the receiver answers 400")
        super().send(message)


def test_a_message_that_is_refused_holds_up_no_other_and_is_given_up(caplog: pytest.LogCaptureFixture):
    def says(job: Job) -> Sequence[Signal]:
        late = [signal("level.streaming_features", "breach", job.at_us, "")] if job.check == "levels" else []
        return [*drifts(job), *late]

    channel = RefusingChannel()
    world = World(says, channel=channel)
    problems = world.minutes(4).problems
    assert problems == {}  # it is not its turn in this round
    world.minutes(20)
    assert world.kinds == ["raised"]  # of the drift, which came behind it
    assert channel.tries == REFUSED_TRIES
    state = state_from(world.documents.read(DOCUMENT)[1])
    assert (state.outbox, state.given_up) == ([], {"played": 1})
    assert "was never told of" in caplog.text
    metrics = WatchMetrics()
    metrics.show(world.watch.tick(), SCHEMA, world.now_us)
    assert metrics.registry.get_sample_value("streamrec_notices_given_up", {"channel": "played"}) == 1


class SlowChannel(PlayedChannel):
    """Each message takes all the time that one may."""

    world: World
    order: list[str]

    def send(self, message: Any) -> None:
        self.world.now_us += int(SEND_S * 1e6)
        self.order.append(message.model)
        super().send(message)


def test_whoever_tells_still_leads_however_slow_the_channel_is():
    models = [f"streamrec-ranking/{n}" for n in range(9)]
    live = dict(zip((f"streamrec:{n}" for n in range(9)), models, strict=True))

    def says(job: Job) -> Sequence[Signal]:
        return [signal("drift.severity", "breach", job.at_us, m) for m in models] if job.check == "drift" else []

    channel = SlowChannel()
    world = World(says, channel=channel)
    channel.world, channel.order = world, []
    world.live = type(world.live)(tuple(live), "", live)
    for _ in range(60):
        began_us = world.now_us
        assert world.watch.tick().leading
        assert world.now_us - began_us < (LEASE_S - 5) * 1e6  # it was renewed 5 s before, at the earliest
        world.now_us += 30_000_000
    assert channel.order == models  # all, each once, in order
