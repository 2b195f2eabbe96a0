"""What is promised about looking often, on simulated data: false alarms, coverage, power. Seeds are fixed."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from benchmarks.aa_looks import LOOKS, World, first_stops
from monitoring.statistics import always_valid, srm
from monitoring.statistics.always_valid import compare, rate_bounds, rho_squared
from monitoring.statistics.estimates import Estimate
from monitoring.statistics.power import Design, bernoulli_variance, power_at, sample_size
from monitoring.statistics.samples import Proportion, Ratio

RUNS = 1000


def at_most(share: float, runs: int = RUNS) -> int:
    """So many alarms a test of at most this share raises in all but 1 of 1,000 sets of runs."""
    return int(binom.ppf(0.999, runs, share))


def test_a_thousand_aa_tests_looked_at_100_times_raise_5_percent_alarms_at_most_per_user() -> None:
    """Users of uneven activity who come again and again. Per impression and with a fixed test it goes wrong."""
    stops = first_stops(World(users=500), RUNS, seed=7, tuning_n=1000)
    assert (stops["per user"] < LOOKS).sum() <= at_most(0.05)
    assert (stops["per impression"] < LOOKS).mean() > 0.25
    assert (stops["fixed"] < LOOKS).mean() > 0.25


def test_a_panel_that_is_there_from_the_first_look_raises_no_more_alarms() -> None:
    """The hardest case for a clock that counts users: information grows and the number of users does not."""
    stops = first_stops(World(users=400, panel=True, rate_shape=1000.0), RUNS, seed=8, tuning_n=800)
    assert (stops["per user"] < LOOKS).sum() <= at_most(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [
        World(users=5000),
        World(users=5000, rate=0.005),
        World(users=2000, spread=1.5, rate_shape=1.0),
        World(users=5000, panel=True, rate_shape=1000.0),
    ],
    ids=["many", "rare", "very uneven", "panel"],
)
def test_aa_tests_of_many_users_hold_as_well(world: World) -> None:
    stops = first_stops(world, RUNS, seed=9)
    assert (stops["per user"] < LOOKS).sum() <= at_most(0.05)


def growing(rng: np.random.Generator, rate: float, at: NDArray[np.int64], runs: int) -> NDArray[np.int64]:
    """Successes so far. Shape (runs, looks)."""
    steps = np.diff(np.concatenate([[0], at]))
    return rng.binomial(steps, rate, (runs, len(at))).cumsum(1)


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.5])
def test_the_bounds_of_a_rate_hold_at_all_looks_at_once(rate: float) -> None:
    at = np.unique(np.geomspace(1, 20_000, 40).astype(np.int64))
    seen = growing(np.random.default_rng(1), rate, at, 500)
    missed = 0
    for run in seen:
        bounds = (rate_bounds(int(s), int(n), 0.05) for s, n in zip(run, at, strict=True))
        missed += any(not low <= rate <= high for low, high in bounds)
    assert missed <= at_most(0.05, 500)


@pytest.mark.parametrize("split", [0.5, 0.1])
@pytest.mark.parametrize("rate", [0.0005, 0.01])
def test_few_events_and_uneven_arms_raise_5_percent_alarms_at_most(rate: float, split: float) -> None:
    """From the first event on: on-off while there are few, the normal law after."""
    rng = np.random.default_rng(2)
    at = np.unique(np.geomspace(10, 50_000, 40).astype(np.int64))
    n1 = np.maximum((at * split).astype(np.int64), 2)
    control, treatment = growing(rng, rate, at, 400), growing(rng, rate, n1, 400)
    alarms, fell_back = 0, 0
    for a, b in zip(control, treatment, strict=True):
        found = [
            compare(Proportion(int(n), int(s)), Proportion(int(m), int(t)))
            for n, s, m, t in zip(at, a, n1, b, strict=True)
        ]
        alarms += any(isinstance(e, Estimate) and e.p is not None and e.p < 0.05 for e in found)
        fell_back += any(isinstance(e, Estimate) and e.on_off for e in found)
    assert fell_back == 400
    assert alarms <= at_most(0.05, 400)


def test_heavy_tails_are_why_few_events_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of a log-normal tail at 10:90: without the fallback far over 5 % of the A/A tests stop."""

    def alarms() -> int:
        rng = np.random.default_rng(3)
        at = np.unique(np.geomspace(20, 10_000, 40).astype(np.int64))
        found = 0
        for _ in range(300):
            control = _running_sums(rng, at)
            treatment = _running_sums(rng, np.maximum(at // 10, 2))
            estimates = (compare(a, b) for a, b in zip(control, treatment, strict=True))
            found += any(isinstance(e, Estimate) and e.p is not None and e.p < 0.05 for e in estimates)
        return found

    assert alarms() <= at_most(0.05, 300)
    monkeypatch.setattr(always_valid, "LEAST_EVENTS", 1)
    assert alarms() > at_most(0.05, 300)


def _running_sums(rng: np.random.Generator, at: NDArray[np.int64]) -> list[Ratio]:
    x = (rng.random(at[-1]) < 0.05) * rng.lognormal(0, 1.5, at[-1])
    sums, squares, on = x.cumsum(), (x * x).cumsum(), (x > 0).cumsum()
    return [Ratio(int(n), sums[n - 1], n, squares[n - 1], n, sums[n - 1], int(on[n - 1])) for n in at.tolist()]


def test_a_split_that_is_right_is_doubted_once_in_a_thousand_at_most_however_often_one_looks() -> None:
    rng = np.random.default_rng(4)
    at = np.unique(np.geomspace(10, 1_000_000, 60).astype(np.int64))
    alarms, by_one_look = 0, 0
    for run in growing(rng, 0.5, at, 300):
        counts = [(int(n - s), int(s)) for n, s in zip(at, run, strict=True)]
        alarms += any(srm.always_valid(c, (0.5, 0.5)) < 0.05 for c in counts)
        by_one_look += any(srm.chi_square(c, (0.5, 0.5)) < 0.05 for c in counts[::4])
    assert alarms <= at_most(0.05, 300)
    assert by_one_look > at_most(0.05, 300)


def test_a_split_that_is_wrong_is_found() -> None:
    assert srm.always_valid((10_000, 11_000), (0.5, 0.5)) < 0.001
    assert srm.always_valid((9_000, 1_500), (0.9, 0.1)) < 0.001
    assert srm.always_valid((9_000, 1_000), (0.9, 0.1)) == 1.0


def test_the_size_for_the_always_valid_test_has_the_power_it_says() -> None:
    """CTR 5 %, −10 %: simulated at 20 looks. The last look alone has 80 %, all looks together a little more."""
    design = Design(method="sequential")
    rates = 0.05, 0.045
    size = sample_size(-0.005, *map(bernoulli_variance, rates), design)
    assert power_at(-0.005, *map(bernoulli_variance, rates), size.total, design) == pytest.approx(0.8, abs=1e-4)
    rng = np.random.default_rng(5)
    at = np.linspace(0, size.n_control, 21).astype(np.int64)[1:]
    control, treatment = (growing(rng, r, at, 4000) for r in rates)
    variance = (control * (at - control) + treatment * (at - treatment)) / at.astype(float) ** 3
    t = 2 * at * rho_squared(0.05)
    radius = np.sqrt((t + 1) / t * 2 * np.log(np.sqrt(t + 1) / 0.05))
    crossed = np.abs(control - treatment) / at > radius * np.sqrt(variance)
    noise = 3.3 * math.sqrt(0.8 * 0.2 / 4000)
    assert crossed[:, -1].mean() == pytest.approx(0.8, abs=noise)
    assert 0.8 <= crossed.any(1).mean() <= 0.86
