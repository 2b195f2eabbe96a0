"""A tally as a snapshot: which arm a step looks at, what has no figure, and figures by hand."""

import math

import pytest

from contracts.measurements import Snapshot
from contracts.routing import Target
from monitoring.evidence.snapshot import snapshot
from monitoring.evidence.tally import Tally
from monitoring.statistics.always_valid import compare, estimate
from monitoring.statistics.samples import Ratio
from registry.releases.policy import Metric, Policy, Step
from registry.releases.values import PolicyText, Release
from tests.unit.evidence.records import (
    BEGIN_US,
    METRICS,
    RELEASE,
    World,
    attempt,
    attempts,
    compared,
    events,
    exposures,
)

SHADOW = (
    METRICS[0],
    Metric(name="p99", kind="p99_ms", direction="lower", limit=100),
    Metric(name="correlation", kind="score_correlation", direction="higher", limit=0.5),
    Metric(name="range", kind="score_range", direction="lower", range=(0.0, 1.0), limit=0.001),
    Metric(name="schema", kind="schema", direction="lower", limit=0.001),
    Metric(name="overlap", kind="overlap", direction="higher", role="report"),
)
STEPS = (
    Step(kind="shadow", weight=100, metrics=("errors",)),
    Step(kind="canary", weight=25, metrics=("errors",)),
    Step(kind="canary", weight=100, metrics=("errors",)),
)


def release(step: int, metrics: tuple[Metric, ...] = METRICS) -> Release:
    return Release(
        id=RELEASE,
        candidate=Target(bento="new"),
        champion=Target(bento="old"),
        policy_text=PolicyText(name="p", version="1", sha256="0" * 64, text=""),
        policy=Policy(name="p", version="1", metrics=metrics, steps=STEPS),
        state="canary",
        step=step,
        created_us=BEGIN_US,
        step_since_us=BEGIN_US,
        since_us=BEGIN_US,
    )


def of(tally: Tally, step: int, metrics: tuple[Metric, ...] = METRICS) -> Snapshot:
    return snapshot(release(step, metrics), tally, BEGIN_US + 1)


@pytest.fixture(scope="module")
def tally() -> Tally:
    world = World(seed=3, users=900, requests=4000)
    tally = Tally(METRICS, release=RELEASE, since_us=BEGIN_US)
    tally.add(exposures(world.exposures), attempts(world.attempts), events(world.events), now_us=BEGIN_US)
    return tally


def test_figures_are_those_of_statistics_at_the_metrics_share_of_alpha(tally: Tally) -> None:
    found = of(tally, 1)
    policy = release(1).policy
    metric = METRICS[2]  # degradation: no slices
    assert policy.alpha_of(metric) == 0.05
    arms = [tally.sums("rungs", arm) for arm in ("control", "candidate")]
    control, mine = (Ratio(s.n, s.sum_x, s.sum_y, s.sum_xx, s.sum_yy, s.sum_xy, s.on) for s in arms)
    expected, alone = compare(control, mine, alpha=0.05), estimate(mine, alpha=0.05, rate=True)
    measured = found.metrics["rungs"]
    assert (measured.effect, measured.ci, measured.p) == (expected.effect, expected.ci, expected.p)  # type: ignore[union-attr]
    assert (measured.value, measured.value_ci) == (mine.value, alone.ci)  # type: ignore[union-attr]
    # errors is critical, as ctr is, and has slices: half of half of 0.02
    assert policy.alpha_of(METRICS[0]) == pytest.approx(0.01)
    sums = tally.sums("errors", "candidate")
    own = Ratio(sums.n, sums.sum_x, sums.sum_y, sums.sum_xx, sums.sum_yy, sums.sum_xy, sums.on)
    assert found.metrics["errors"].value_ci == estimate(own, alpha=0.005, rate=True).ci  # type: ignore[union-attr]


def test_slices_have_enough_units_and_wider_intervals(tally: Tally) -> None:
    errors = of(tally, 1).metrics["errors"]
    assert set(errors.slices) == {"country=DE", "country=FR", "country=US"}
    assert all(s.n >= 100 and s.value is not None for s in errors.slices.values())
    rare = METRICS[0].model_copy(update={"slice_least_units": 10_000})
    assert of(tally, 1, (rare, *METRICS[1:])).metrics["errors"].slices == {}
    ctr = of(tally, 1).metrics["ctr"]
    assert set(ctr.slices) == {"country=DE", "country=FR", "country=US"}
    assert all(s.effect is not None and s.control is not None for s in ctr.slices.values())


def test_a_mean_and_a_share_of_units_are_what_they_say(tally: Tally) -> None:
    found = of(tally, 1).metrics
    for name in ("buyers", "orders", "revenue"):
        sums = tally.sums(name, "candidate")
        assert found[name].value == pytest.approx(sums.sum_x / sums.n)
        assert found[name].samples == tally.arm("candidate").requests
        assert found[name].effect is not None
    assert "delta" not in found["buyers"].convention
    assert found["ctr"].stratified_effect is not None


def test_srm_and_mix_are_of_units(tally: Tally) -> None:
    found = of(tally, 1)
    assert found.srm_p is not None
    assert 0.001 < found.srm_p <= 1
    assert found.rung_mix_p is not None
    assert found.rung_mix_p > 0.01  # both arms have one mix
    assert set(found.arms) == {"candidate", "control", "champion"}


def test_at_100_percent_nothing_is_compared(tally: Tally) -> None:
    found = of(tally, 2)
    assert (found.srm_p, found.rung_mix_p) == (None, None)
    for measured in found.metrics.values():
        assert (measured.effect, measured.control, measured.p) == (None, None, None)
    assert found.metrics["errors"].value is not None


def test_a_shadow_step_looks_at_the_shadow_alone(tally: Tally) -> None:
    found = of(tally, 0)
    assert found.metrics["errors"].problem == "no data yet"
    assert "shadow" in (found.metrics["ctr"].problem or "")
    assert of(tally, -1).metrics["errors"].problem == "no data yet"


def shadowed(n: int = 4000, **more: object) -> Tally:
    tally = Tally(SHADOW, release=RELEASE, since_us=BEGIN_US)
    calls = []
    for i in range(n):
        values: dict[str, object] = {
            "shadow": True,
            "ms": 20.0 + i % 60,
            "compared": compared(0.8 if i % 2 else 0.6, 0.2 if i % 2 else 0.3),
            "panel": ["new_user"] if i % 10 == 0 else [],
        }
        calls.append(attempt(f"s{i}", f"u{i}", "candidate", BEGIN_US, **(values | more)))
    tally.add(attempts=attempts(calls), now_us=BEGIN_US)
    return tally


def test_a_good_shadow_by_hand() -> None:
    found = of(shadowed(), 0, SHADOW)
    metrics = found.metrics
    assert found.arms["shadow"].requests == 4000
    assert found.panel == {"new_user": 400}
    assert metrics["errors"].value == 0
    assert metrics["correlation"].value == pytest.approx(0.7)
    assert metrics["overlap"].value == pytest.approx(0.25)
    assert metrics["schema"].value == 0
    assert metrics["range"].value == 0
    p99 = metrics["p99"]
    assert p99.value == pytest.approx(79, rel=0.03)  # 1 of 60 takes 79 ms, 1 of 60 takes 78
    assert p99.value_ci is not None
    low, high = p99.value_ci
    assert 70 < low <= p99.value <= high < 83


def test_p99_knows_when_it_is_too_high_and_when_it_cannot_tell() -> None:
    slow = of(shadowed(ms=250.0), 0, SHADOW).metrics["p99"]
    assert slow.value_ci is not None
    assert slow.value_ci[0] > 100
    few = of(shadowed(50), 0, SHADOW).metrics["p99"]
    assert few.value is None
    assert "too few attempts" in (few.problem or "")
    hung = of(shadowed(outcome="late", degradation=None, n_items=0), 0, SHADOW).metrics["p99"]
    assert hung.value_ci is not None
    assert hung.value_ci[0] > 100
    assert math.isfinite(hung.value_ci[1])


def test_a_bad_shadow_is_seen() -> None:
    broken = of(shadowed(schema_ok=False, outcome="error", degradation=None), 0, SHADOW).metrics
    assert broken["schema"].value == 1
    assert broken["errors"].value == 1
    assert broken["range"].problem == "no data yet"
    wild = of(shadowed(score_max=float("inf")), 0, SHADOW).metrics
    assert wild["range"].value == 1
    alone = of(shadowed(compared=None), 0, SHADOW).metrics
    assert alone["correlation"].problem == "no data yet"


def test_an_empty_tally_gives_problems_and_no_figures() -> None:
    for step in (0, 1, 2):
        found = of(Tally(METRICS, release=RELEASE), step)
        assert found.srm_p is None
        assert found.rung_mix_p is None
        assert all(m.problem and m.value is None and m.effect is None for m in found.metrics.values())
