"""The tally against loops over the same records, in every order in which logs may hand them over."""

from dataclasses import astuple

import numpy as np
import pyarrow as pa
import pytest

from contracts.errors import UsageError
from monitoring.evidence.tally import Limits, Tally
from registry.releases.policy import Metric
from tests.unit.evidence.records import (
    BEGIN_US,
    HOUR,
    METRICS,
    RELEASE,
    SECOND,
    World,
    attempt,
    attempts,
    event,
    events,
    exposure,
    exposures,
)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def expected(world: World) -> dict[tuple[str, str], tuple[float, ...]]:
    return {(m.name, arm): world.sums(m, arm) for m in METRICS for arm in ("candidate", "control")}


def filled(world: World, pieces: int = 1, order: str = "aet", shuffle: int | None = None) -> Tally:
    """order: of the logs (attempts, exposures, and events: t) within each piece."""
    tally = Tally(METRICS, release=RELEASE, since_us=BEGIN_US)
    tables = {"e": exposures(world.exposures), "a": attempts(world.attempts), "t": events(world.events)}
    if shuffle is not None:
        rng = np.random.default_rng(shuffle)
        tables = {name: t.take(pa.array(rng.permutation(len(t)))) for name, t in tables.items()}
    words = {"e": "exposures", "a": "attempts", "t": "events"}
    for piece in range(pieces):
        for log in order:
            table = tables[log]
            cut = [len(table) * p // pieces for p in (piece, piece + 1)]
            tally.add(**{words[log]: table.slice(cut[0], cut[1] - cut[0])}, now_us=BEGIN_US)
    return tally


ORDERS = [
    (1, "aet", None),
    (7, "aet", None),
    (7, "eat", None),
    (5, "tea", None),
    (40, "tae", None),
    (1, "eta", 5),
    (1, "tea", 6),
]


@pytest.mark.parametrize(("pieces", "order", "shuffle"), ORDERS)
def test_sums_are_those_of_a_loop_in_any_order(
    world: World, expected: dict[tuple[str, str], tuple[float, ...]], pieces: int, order: str, shuffle: int | None
) -> None:
    tally = filled(world, pieces, order, shuffle)
    tally.add(now_us=BEGIN_US)  # what has waited for its context is settled
    for (metric, arm), sums in expected.items():
        assert astuple(tally.sums(metric, arm)) == pytest.approx(sums), (metric, arm)


@pytest.mark.parametrize("name", ["errors", "empty", "ctr"])
def test_slices_are_those_of_a_loop(world: World, name: str) -> None:
    metric = next(m for m in METRICS if m.name == name)
    slices = filled(world, 7, "eat").slices(name)
    for country in ("DE", "FR", "US"):
        for arm in ("candidate", "control"):
            found = astuple(slices[f"country={country}"][arm])
            assert found == pytest.approx(world.sums(metric, arm, country)), (country, arm)


def test_rungs_add_up_to_all_requests(world: World) -> None:
    tally = filled(world, 7)
    for arm in ("candidate", "control"):
        of_arm = [e for e in world.exposures if e.assigned == arm]
        count = tally.arm(arm)
        assert count.requests == len(of_arm)
        assert count.units == len({e.unit for e in of_arm})
        assert count.rungs == {r: sum(e.degradation == r for e in of_arm) for r in count.rungs}
        for rung, sums in tally.rung_sums(arm).items():
            per_unit = {u: [e for e in of_arm if e.unit == u] for u in {e.unit for e in of_arm}}
            xs = np.array([sum(e.degradation == rung for e in es) for es in per_unit.values()])
            ys = np.array([len(es) for es in per_unit.values()])
            expected = (len(xs), xs.sum(), ys.sum(), (xs**2).sum(), (ys**2).sum(), (xs * ys).sum(), (xs > 0).sum())
            assert astuple(sums) == pytest.approx(expected)
        by_rung = tally.metric_by_rung("ctr", arm)
        assert sum(s.sum_x for s in by_rung.values()) == pytest.approx(tally.sums("ctr", arm).sum_x)
    assert tally.arm("champion").requests == sum(e.assigned == "champion" for e in world.exposures)


def test_the_same_exposure_twice_counts_once(world: World) -> None:
    tally = filled(world)
    before = tally.sums("ctr", "candidate")
    tally.add(exposures=exposures(world.exposures), now_us=BEGIN_US + 60 * SECOND)
    tally.add(now_us=BEGIN_US + 120 * SECOND)
    assert tally.sums("ctr", "candidate") == before
    assert tally.counts["duplicates"] == sum(e.assigned != "champion" for e in world.exposures)


def one(metrics: tuple[Metric, ...] = (METRICS[4],), **more: object) -> Tally:
    plain = tuple(m.model_copy(update={"slices": ()}) for m in metrics)
    return Tally(plain, release=RELEASE, since_us=BEGIN_US, **more)  # type: ignore[arg-type]


def test_a_click_that_comes_before_its_exposure_waits_for_it() -> None:
    tally = one()
    tally.add(events=events([event("u", "i1", "click", BEGIN_US + 1, "q")]), now_us=BEGIN_US + 1)
    assert tally.waiting == 1
    tally.add(exposures=exposures([exposure("q", "u", "candidate", BEGIN_US, ["i1", "i2"])]), now_us=BEGIN_US + 2)
    assert tally.waiting == 0
    assert (tally.sums("ctr", "candidate").sum_x, tally.sums("ctr", "candidate").sum_y) == (1, 2)


def test_a_click_whose_exposure_never_comes_is_given_up_and_counted() -> None:
    tally = one()
    tally.add(events=events([event("u", "i1", "click", BEGIN_US, "nowhere")]), now_us=BEGIN_US)
    later = BEGIN_US + HOUR
    tally.add(exposures=exposures([exposure("q", "u", "candidate", later, ["i1"])]), now_us=later)
    assert tally.waiting == 0
    assert tally.counts["unknown_request"] == 1


def test_events_that_wait_are_bounded() -> None:
    tally = one(limits=Limits(waiting=50))
    for number in range(20):
        acts = [event("u", "i", "click", BEGIN_US + i, f"{number}-{i}") for i in range(10)]
        tally.add(events=events(acts), now_us=BEGIN_US)
    assert tally.waiting <= 50
    assert tally.waiting + tally.counts["unknown_request"] == 200


def test_a_click_after_the_window_does_not_count_and_one_at_its_end_does() -> None:
    for hours, counted in ((24.0, 1), (24.1, 0)):
        tally = one()
        tally.add(exposures=exposures([exposure("q", "u", "candidate", BEGIN_US, ["i"])]), now_us=BEGIN_US)
        at_us = BEGIN_US + int(hours * HOUR)
        tally.add(events=events([event("u", "i", "click", at_us, "q")]), now_us=at_us)
        assert tally.sums("ctr", "candidate").sum_x == counted


def test_a_clock_that_is_a_minute_behind_loses_no_click() -> None:
    tally = one()
    at_us = BEGIN_US + HOUR
    tally.add(exposures=exposures([exposure("q", "u", "control", at_us, ["i"])]), now_us=at_us)
    tally.add(events=events([event("u", "i", "click", at_us - 60 * SECOND, "q")]), now_us=at_us)
    assert tally.sums("ctr", "control").sum_x == 1


def test_requests_of_testers_and_calls_that_were_not_made_are_no_evidence() -> None:
    tally = one(METRICS[:1])
    forced = exposure("q1", "t", "candidate", BEGIN_US, ["i"], experiments={})
    calls = [
        attempt("q1", "t", "candidate", BEGIN_US, forced=True, outcome="error"),
        attempt("q2", "u", "candidate", BEGIN_US, outcome="open"),
        attempt("q3", "u", "candidate", BEGIN_US, release="another", outcome="error"),
        attempt("q4", "u", "candidate", BEGIN_US - 1, outcome="error"),
        attempt("q5", "u", "candidate", BEGIN_US),
    ]
    tally.add(exposures([forced]), attempts(calls), now_us=BEGIN_US)
    assert tally.arm("candidate").units == 0
    assert (tally.sums("errors", "candidate").sum_x, tally.sums("errors", "candidate").sum_y) == (0, 1)


def test_a_candidate_that_was_saved_by_failover_still_failed() -> None:
    tally = one(METRICS[:1])
    shown = exposure("q", "u", "candidate", BEGIN_US, ["i"], served="champion")
    calls = [
        attempt("q", "u", "candidate", BEGIN_US, outcome="error", status=500, degradation=None),
        attempt("q", "u", "champion", BEGIN_US + 1),
    ]
    tally.add(exposures([shown]), attempts(calls), now_us=BEGIN_US)
    assert tally.sums("errors", "candidate").sum_x == 1
    assert tally.arm("candidate").requests == 1


def test_a_unit_that_moved_acts_for_the_arm_that_it_came_to_last() -> None:
    tally = one(METRICS[5:6])
    shown = [
        exposure("q1", "u", "control", BEGIN_US, ["i"]),
        exposure("q2", "u", "candidate", BEGIN_US + HOUR, ["i"]),
    ]
    tally.add(exposures(shown), now_us=BEGIN_US + HOUR)
    tally.add(events=events([event("u", "x", "purchase", BEGIN_US + 2 * HOUR, None)]), now_us=BEGIN_US + 2 * HOUR)
    assert tally.sums("buyers", "candidate").sum_x == 1
    assert tally.sums("buyers", "control").sum_x == 0


def test_old_requests_are_forgotten_when_there_are_too_many() -> None:
    tally = one(limits=Limits(requests=100))
    for piece in range(30):
        shown = [exposure(f"q{piece}-{i}", f"u{i}", "candidate", BEGIN_US + piece, ["i"]) for i in range(10)]
        tally.add(exposures(shown), now_us=BEGIN_US + piece)
    assert tally.counts["forgotten"] >= 150
    assert tally.arm("candidate").requests == 300
    acts = [event("u1", "i", "click", BEGIN_US + 40, f"q{piece}-1") for piece in range(30)]
    tally.add(events=events(acts), now_us=BEGIN_US + 40)
    assert 5 <= tally.sums("ctr", "candidate").sum_x <= 10


def test_requests_past_their_window_are_forgotten_and_counts_stay() -> None:
    tally = one()
    for hour in range(100):
        at_us = BEGIN_US + hour * HOUR
        tally.add(exposures([exposure(f"q{hour}", "u", "candidate", at_us, ["i"])]), now_us=at_us)
        tally.forget(at_us)
    assert len(tally._requests) < 70
    tally.add(events=events([event("u", "i", "click", BEGIN_US + 99 * HOUR, "q98")]), now_us=BEGIN_US + 99 * HOUR)
    assert (tally.sums("ctr", "candidate").sum_x, tally.sums("ctr", "candidate").sum_y) == (1, 100)


def test_a_slate_without_context_is_counted_after_a_while_but_in_no_slice() -> None:
    tally = Tally(METRICS[4:5], release=RELEASE, since_us=BEGIN_US)
    tally.add(exposures([exposure("q", "u", "candidate", BEGIN_US, ["i"])]), now_us=BEGIN_US)
    assert tally.arm("candidate").requests == 0
    tally.add(now_us=BEGIN_US + 60 * SECOND)
    assert tally.arm("candidate").requests == 1
    assert tally.slices("ctr") == {}


def test_what_waits_for_its_context_is_bounded() -> None:
    tally = Tally(METRICS[4:5], release=RELEASE, since_us=BEGIN_US, limits=Limits(waiting=20))
    for piece in range(10):
        shown = [exposure(f"q{piece}-{i}", f"u{i}", "candidate", BEGIN_US, ["i"]) for i in range(10)]
        alone = [attempt(f"a{piece}-{i}", "u", "champion", BEGIN_US) for i in range(10)]
        tally.add(exposures(shown), attempts(alone), now_us=BEGIN_US)
    assert tally.arm("candidate").requests >= 70
    assert sum(len(request) for _, request, _ in tally._contexts) <= 40


def test_values_of_a_context_key_are_bounded() -> None:
    tally = Tally(METRICS[:1], release=RELEASE, since_us=BEGIN_US)
    calls = [attempt(f"q{i}", f"u{i}", "candidate", BEGIN_US, context={"country": f"c{i}"}) for i in range(3000)]
    tally.add(attempts=attempts(calls), now_us=BEGIN_US)
    assert len(tally.slices("errors")) == 1000
    assert tally.sums("errors", "candidate").n == 3000


def test_too_many_kinds_of_click_rates_are_refused() -> None:
    many = [Metric(name=f"m{i}", kind="ctr", direction="higher", event=f"e{i}") for i in range(9)]
    with pytest.raises(UsageError, match="at most 8"):
        Tally(many, release=RELEASE)


def test_an_experiment_counts_attempts_by_the_arm_of_their_request() -> None:
    tally = Tally(METRICS[:1], release="e1", arms=("treatment", "control"), since_us=BEGIN_US, by_request=True)
    shown = [
        exposure("q1", "u1", "champion", BEGIN_US, ["i"], experiments={"e1": "treatment"}),
        exposure("q2", "u2", "champion", BEGIN_US, ["i"], experiments={"e1": "control"}),
    ]
    calls = [
        attempt("q1", "u1", "champion", BEGIN_US, release="", outcome="error"),
        attempt("q2", "u2", "champion", BEGIN_US, release=""),
    ]
    tally.add(attempts=attempts(calls), now_us=BEGIN_US)
    tally.add(exposures(shown), now_us=BEGIN_US)
    assert (tally.sums("errors", "treatment").sum_x, tally.sums("errors", "control").sum_x) == (1, 0)
    assert tally.sums("errors", "control").sum_y == 1
