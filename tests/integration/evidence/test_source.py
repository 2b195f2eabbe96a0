"""Evidence from logs that the real writers wrote, while they grow, are rolled, damaged and read again."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bentos.telemetry.attempts import AttemptLog
from bentos.telemetry.event_store import EventStore
from bentos.telemetry.exposures import ExposureLog
from bentos.telemetry.record_log import Hide
from bentos.telemetry.roll import roll
from bentos.telemetry.segments import segments
from contracts.attempts import Attempt
from contracts.events import Event
from contracts.exposures import Exposure
from contracts.measurements import Snapshot
from contracts.routing import Target
from contracts.settings import Settings
from contracts.user_keys import UserKeys, rotate
from monitoring.evidence.source import Evidence, evidence_source, experiment_evidence
from registry.releases.policy import Metric, Policy, Step
from registry.releases.values import PolicyText, Release
from tests.unit.evidence.records import BEGIN_US, METRICS, RELEASE, World, attempt, event, exposure

SQL = "SELECT unit, count(*) AS numerator, 1 AS denominator FROM exposures GROUP BY unit"
ALL = (*METRICS, Metric(name="asked", kind="sql", sql=SQL, direction="higher", margin=0.1))


def release(metrics: tuple[Metric, ...] = ALL, **more: object) -> Release:
    step = Step(kind="canary", weight=25, metrics=("errors", "ctr"))
    values = {
        "id": RELEASE,
        "candidate": Target(bento="new"),
        "champion": Target(bento="old"),
        "policy_text": PolicyText(name="p", version="1", sha256="0" * 64, text=""),
        "policy": Policy(name="p", version="1", metrics=metrics, steps=(step,)),
        "state": "canary",
        "step": 0,
        "created_us": BEGIN_US,
        "step_since_us": BEGIN_US,
        "since_us": BEGIN_US,
    }
    return Release.model_validate(values | more)


@dataclass
class Home:
    """A home whose logs are written as a gateway and its consumer do."""

    path: Path
    writers: list[ExposureLog | AttemptLog] = field(default_factory=list)

    def write(
        self, exposures: list[Exposure], attempts: list[Attempt], events: list[Event], *, hide: Hide | None = None
    ) -> None:
        shown, made = ExposureLog(self.path, hide=hide), AttemptLog(self.path, hide=hide)
        self.writers += [shown, made]
        for e in exposures:
            shown.append(e)
        for a in attempts:
            made.append(a)
        until(lambda: shown.counts().written == len(exposures) and made.counts().written == len(attempts))
        store = EventStore(self.path)
        store.append([events])
        store.close()

    def end_writers(self) -> None:
        while self.writers:
            self.writers.pop().close()


def until(condition: object, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.end_writers()


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=2)


def same(found: Snapshot, other: Snapshot) -> bool:
    return found.model_copy(update={"taken_us": 0}) == other.model_copy(update={"taken_us": 0})


def whole(home: Home, now_us: int = BEGIN_US) -> Snapshot:
    """A reader that starts now."""
    return evidence_source(Settings(home=home.path))(release(), now_us)


def thirds(world: World) -> list[tuple[list[Exposure], list[Attempt], list[Event]]]:
    cut = [[len(r) * i // 3 for i in range(4)] for r in (world.exposures, world.attempts, world.events)]
    return [
        (
            world.exposures[cut[0][i] : cut[0][i + 1]],
            world.attempts[cut[1][i] : cut[1][i + 1]],
            world.events[cut[2][i] : cut[2][i + 1]],
        )
        for i in range(3)
    ]


def test_figures_are_those_of_the_records(home: Home, world: World) -> None:
    home.write(world.exposures, world.attempts, world.events)
    found = whole(home, world.now_us)
    assert found.problem is None
    assert found.arms["candidate"].requests == sum(e.assigned == "candidate" for e in world.exposures)
    for metric in METRICS:
        measured = found.metrics[metric.name]
        n, x, y, *_ = world.sums(metric, "candidate")
        assert measured.n == n
        assert measured.value == pytest.approx(x / y), metric.name
        n, x, y, *_ = world.sums(metric, "control")
        assert measured.control == pytest.approx(x / y), metric.name
        assert measured.problem is None
    assert found.srm_p is not None
    assert found.srm_p > 0.01
    per_unit = [e for e in world.exposures if e.assigned == "candidate"]
    assert found.metrics["asked"].value == pytest.approx(len(per_unit) / len({e.unit for e in per_unit}))


def test_figures_are_the_same_where_users_are_hidden(home: Home, world: World, tmp_path: Path) -> None:
    keys = tmp_path / "users.json"
    rotate(keys, 0)
    rotate(keys, BEGIN_US - 1)  # the key of the release's beginning
    home.write(world.exposures, world.attempts, world.events, hide=UserKeys(keys).hide)
    plain = Home(tmp_path / "plain")
    plain.write(world.exposures, world.attempts, world.events)
    hidden = evidence_source(Settings(home=home.path, user_keys=keys))(release(), world.now_us)
    expected = whole(plain, world.now_us)
    plain.end_writers()
    assert hidden.arms == expected.arms
    for name, measured in expected.metrics.items():
        found = hidden.metrics[name]
        assert (found.n, found.value, found.control) == pytest.approx((measured.n, measured.value, measured.control))
    unkeyed = whole(home, world.now_us).metrics  # without the keys, events that name no request find nobody
    assert (unkeyed["orders"].value or 0) < (expected.metrics["orders"].value or 0)


def test_one_that_follows_says_what_one_that_starts_anew_says(home: Home, world: World) -> None:
    following = evidence_source(Settings(home=home.path))
    for step, piece in enumerate(thirds(world)):
        home.write(*piece)
        if step == 1:
            home.end_writers()
            assert roll(home.path).segments > 0  # what was read as segments is Parquet now
        assert same(following(release(), BEGIN_US), whole(home))
    home.end_writers()
    roll(home.path)
    assert same(following(release(), BEGIN_US), whole(home))


def test_a_segment_that_is_rolled_half_read_is_finished_from_its_parquet(home: Home, world: World) -> None:
    following = Evidence(home.path)
    shown, made = ExposureLog(home.path), AttemptLog(home.path)
    home.writers += [shown, made]
    half = len(world.exposures) // 2
    for e in world.exposures[:half]:
        shown.append(e)
    until(lambda: shown.counts().written == half)
    following(release(), world.now_us)
    for e in world.exposures[half:]:
        shown.append(e)
    for a in world.attempts:
        made.append(a)
    home.end_writers()
    roll(home.path)
    found = following(release(), world.now_us)
    assert found.arms == whole(home).arms
    assert found.arms["candidate"].requests == sum(e.assigned == "candidate" for e in world.exposures)


def test_damage_costs_its_records_and_is_counted(home: Home, world: World) -> None:
    home.write(world.exposures, world.attempts, world.events)
    home.end_writers()
    segment = segments(home.path / "log" / "exposures")[0]
    data = bytearray(segment.path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.path.write_bytes(data)
    evidence = Evidence(home.path)
    found = evidence(release(), world.now_us)
    assert found.problem is None
    assert evidence._followed is not None
    assert evidence._followed.corrupt == 1
    seen = sum(a.requests for name, a in found.arms.items() if name != "shadow")
    assert seen == len(world.exposures) - 1


def test_a_torn_end_is_read_when_the_rest_has_come(home: Home) -> None:
    home.write([exposure(f"q{i}", f"u{i}", "candidate", BEGIN_US, ["i"]) for i in range(50)], [], [])
    home.end_writers()
    path = segments(home.path / "log" / "exposures")[0].path
    data = path.read_bytes()
    path.write_bytes(data[:-7])
    plain = release((METRICS[4].model_copy(update={"name": "ctr", "slices": ()}), METRICS[0]))
    evidence = Evidence(home.path)
    assert evidence(plain, BEGIN_US).arms["candidate"].requests == 49
    path.write_bytes(data)
    assert Evidence(home.path)(plain, BEGIN_US).arms["candidate"].requests == 50


def test_without_logs_there_are_problems_and_no_figures(tmp_path: Path) -> None:
    found = evidence_source(Settings(home=tmp_path))(release(), BEGIN_US)
    assert found.arms == {}
    assert found.srm_p is None
    for measured in found.metrics.values():
        assert measured.problem
        assert (measured.value, measured.effect, measured.ci, measured.p) == (None, None, None, None)


def test_logs_that_do_not_fit_into_the_time_are_no_evidence_yet(
    home: Home, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write(world.exposures, world.attempts, world.events)
    monkeypatch.setattr("monitoring.evidence.source.PIECE", 300)
    evidence = Evidence(home.path, budget_s=0.0)
    found = evidence(release(), world.now_us)
    assert found.problem is not None
    assert "being read" in found.problem
    assert found.metrics == {}
    until(lambda: evidence(release(), world.now_us).problem is None)
    assert same(evidence(release(), world.now_us), whole(home, world.now_us))


def test_a_record_of_an_unknown_schema_is_a_problem_and_never_a_figure(home: Home) -> None:
    home.write([exposure("q", "u", "candidate", BEGIN_US, ["i"], schema=99)], [], [])
    found = evidence_source(Settings(home=home.path))(release(), BEGIN_US)
    assert found.problem is not None
    assert "schema 99" in found.problem


def test_an_event_store_that_is_none_is_a_problem(home: Home) -> None:
    (home.path / "events.db").write_bytes(b"no database" * 1000)
    found = evidence_source(Settings(home=home.path))(release(), BEGIN_US)
    assert found.problem is not None
    assert "events.db" in found.problem


def test_logs_that_can_be_read_again_are_evidence_again(home: Home) -> None:
    plain = release((METRICS[4].model_copy(update={"slices": ()}), METRICS[0]))
    (home.path / "events.db").write_bytes(b"no database" * 1000)
    home.writers.append(shown := ExposureLog(home.path))
    shown.append(exposure("q", "u", "candidate", BEGIN_US, ["i"]))
    until(lambda: shown.counts().written == 1)
    evidence = evidence_source(Settings(home=home.path))
    assert evidence(plain, BEGIN_US).problem
    (home.path / "events.db").unlink()
    assert evidence(plain, BEGIN_US + 1_000_000).problem  # not at once: a whole read may be costly
    assert evidence(plain, BEGIN_US + 11_000_000).arms["candidate"].requests == 1


def test_another_analysis_counts_from_its_own_beginning(home: Home, world: World) -> None:
    home.write(world.exposures, world.attempts, world.events)
    evidence = evidence_source(Settings(home=home.path))
    before = evidence(release(), world.now_us)
    middle = world.exposures[len(world.exposures) // 2].timestamp_us
    after = evidence(release(since_us=middle, step_since_us=middle), world.now_us)
    assert after.since_us == middle
    later = [e for e in world.exposures if e.assigned == "candidate" and e.timestamp_us >= middle]
    assert after.arms["candidate"].requests == len(later) < before.arms["candidate"].requests


def test_events_that_come_days_late_and_twice_count_once(home: Home) -> None:
    shown = [exposure("q", "u", "candidate", BEGIN_US, ["i", "j"])]
    click = event("u", "i", "click", BEGIN_US + 1_000_000, "q")
    home.write(shown, [attempt("q", "u", "candidate", BEGIN_US, context={"country": "DE"})], [])
    evidence = evidence_source(Settings(home=home.path))
    later = BEGIN_US + 3_600_000_000
    assert evidence(release(), BEGIN_US).arms["candidate"].requests == 1
    store = EventStore(home.path)
    again = Event("another-id", "u", "i", "click", BEGIN_US + 2_000_000, later, "q")
    store.append([[click], [click], [again]])
    store.close()
    assert evidence(release(), later).metrics["ctr"].n == 1
    tally = experiment_evidence(Settings(home=home.path), "none", METRICS, since_us=BEGIN_US)
    assert tally.arm("treatment").units == 0
    followed = Evidence(home.path)
    followed(release(), later)
    assert followed._followed is not None
    assert followed._followed.tally.sums("ctr", "candidate").sum_x == 1


def test_an_experiment_is_read_by_its_own_arms(home: Home) -> None:
    arms = ("treatment", "control")
    shown = [
        exposure(f"q{i}", f"u{i}", "champion", BEGIN_US, ["i"], experiments={"e1": arms[i % 2]}) for i in range(100)
    ]
    made = [
        attempt(f"q{i}", f"u{i}", "champion", BEGIN_US, release="", outcome="ok" if i % 4 else "error")
        for i in range(100)
    ]
    acts = [event(f"u{i}", "i", "click", BEGIN_US + 1, f"q{i}") for i in range(0, 100, 2)]
    home.write(shown, made, acts)
    metrics = [METRICS[0].model_copy(update={"slices": ()}), METRICS[4].model_copy(update={"slices": ()})]
    for until_us in (None, BEGIN_US + 10):
        tally = experiment_evidence(Settings(home=home.path), "e1", metrics, since_us=BEGIN_US, until_us=until_us)
        assert (tally.sums("ctr", "treatment").sum_x, tally.sums("ctr", "control").sum_x) == (50, 0)
        assert (tally.sums("errors", "treatment").sum_x, tally.sums("errors", "control").sum_x) == (25, 0)
        assert tally.sums("errors", "control").sum_y == 50
