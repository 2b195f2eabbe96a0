"""What holds for all arms, found by Hypothesis."""

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.statistics import always_valid, fixed
from monitoring.statistics.always_valid import log_e_value, rate_bounds
from monitoring.statistics.estimates import CannotTell, Estimate
from monitoring.statistics.samples import Mean, Proportion, Ratio, Sample

means = st.builds(Mean, st.integers(2, 100_000), st.floats(-100, 100), st.floats(0.01, 50))
proportions = st.integers(2, 20_000).flatmap(lambda n: st.builds(Proportion, st.just(n), st.integers(0, n)))
alphas = st.floats(0.0005, 0.4)


@st.composite
def ratios(draw: st.DrawFn) -> Ratio:
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n = draw(st.integers(2, 400))
    y = 1.0 + rng.poisson(draw(st.floats(0, 20)), n)
    return Ratio.of(rng.binomial(y.astype(int), draw(st.floats(0, 1))).astype(float), y)


pairs = st.one_of(st.tuples(means, means), st.tuples(proportions, proportions), st.tuples(ratios(), ratios()))
METHODS = pytest.mark.parametrize("compare", [always_valid.compare, fixed.compare], ids=["always valid", "fixed"])


@METHODS
@given(pair=pairs, alpha=alphas)
@settings(max_examples=80, deadline=None)
def test_p_is_under_alpha_exactly_when_the_interval_leaves_0_out(
    compare, pair: tuple[Sample, Sample], alpha: float
) -> None:
    found = compare(*pair, alpha=alpha)
    if isinstance(found, CannotTell):
        return
    low, high = found.ci
    assert low <= found.effect <= high
    assert 0 <= found.p <= 1
    if abs(found.p / alpha - 1) > 1e-5:  # on the line itself rounding decides
        assert (found.p < alpha) == (low > 0 or high < 0)


@METHODS
@given(pair=pairs, alpha=alphas)
@settings(max_examples=50, deadline=None)
def test_arms_that_change_places_change_the_sign(compare, pair: tuple[Sample, Sample], alpha: float) -> None:
    there, back = compare(*pair, alpha=alpha), compare(*reversed(pair), alpha=alpha)
    if isinstance(there, CannotTell):
        assert isinstance(back, CannotTell)
        return
    assert back.effect == pytest.approx(-there.effect, abs=1e-12)
    assert back.ci == pytest.approx((-there.ci[1], -there.ci[0]), rel=1e-4, abs=1e-7)
    assert back.p == pytest.approx(there.p, rel=1e-6, abs=1e-300)


@METHODS
@given(pair=pairs, alpha=st.floats(0.001, 0.2))
@settings(max_examples=50, deadline=None)
def test_a_greater_alpha_gives_a_narrower_interval(compare, pair: tuple[Sample, Sample], alpha: float) -> None:
    wide, narrow = compare(*pair, alpha=alpha), compare(*pair, alpha=1.5 * alpha)
    if isinstance(wide, CannotTell):
        return
    assert narrow.ci[1] - narrow.ci[0] <= wide.ci[1] - wide.ci[0] + 1e-12


@METHODS
@given(pair=st.tuples(means, means), scale=st.floats(0.001, 1000))
@settings(max_examples=50, deadline=None)
def test_another_unit_of_measurement_scales_the_effect_and_leaves_p(
    compare, pair: tuple[Mean, Mean], scale: float
) -> None:
    plain = compare(*pair)
    scaled = compare(*(Mean(a.n, a.mean * scale, a.sd * scale) for a in pair))
    if isinstance(plain, CannotTell):
        assert isinstance(scaled, CannotTell)
        return
    assert scaled.effect == pytest.approx(plain.effect * scale, abs=1e-9 * scale)
    assert scaled.ci == pytest.approx(tuple(scale * b for b in plain.ci), rel=1e-6, abs=1e-6 * scale)
    assert scaled.p == pytest.approx(plain.p, rel=1e-6, abs=1e-300)


@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(1e-6, 0.9))
@settings(max_examples=300, deadline=None)
def test_the_bounds_of_a_rate_are_where_its_e_value_is_one_over_alpha(counts: tuple[int, int], alpha: float) -> None:
    s, n = counts
    low, high = rate_bounds(s, n, alpha)
    assert 0 <= low <= s / n <= high <= 1
    assert (low == 0) == (s == 0)
    assert (high == 1) == (s == n) or high > 1 - 1e-9
    for bound in (low, high):
        if 1e-9 < bound < 1 - 1e-9:
            assert log_e_value(s, n, bound) == pytest.approx(-math.log(alpha), abs=1e-4)


@given(st.lists(st.floats(-1000, 1000), min_size=2, max_size=40), st.integers(0, 40))
def test_means_add_up_to_the_mean_of_all(values: list[float], cut: int) -> None:
    whole = np.array(values)
    added = Mean.of(whole[:cut]) + Mean.of(whole[cut:])
    assert added.n == len(values)
    assert added.mean == pytest.approx(whole.mean(), abs=1e-9)
    assert added.sd == pytest.approx(whole.std(ddof=1), abs=1e-6)


@given(ratios(), ratios())
def test_ratios_add_up_field_by_field(a: Ratio, b: Ratio) -> None:
    assert astuple(a + b) == tuple(x + y for x, y in zip(astuple(a), astuple(b), strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@METHODS
def test_no_number_comes_of_nan(compare, bad: float) -> None:
    assert isinstance(compare(Mean(50, bad, 1.0), Mean(50, 2.0, 1.0)), CannotTell)
    assert isinstance(compare(Mean(50, 2.0, 1.0), Mean(50, 2.0, bad)), CannotTell)
    assert isinstance(compare(Ratio(50, bad, 9, 9, 9, 9, 9), Ratio(50, 9, 9, 9, 9, 9, 9)), CannotTell)


@METHODS
def test_no_number_comes_of_no_unit_or_no_variance(compare) -> None:
    assert isinstance(compare(Proportion(0, 0), Proportion(9, 1)), CannotTell)
    assert isinstance(compare(Mean(50, 1.0, 0.0), Mean(50, 2.0, 0.0)), CannotTell)
    assert isinstance(compare(Mean(1, 1.0, 1.0), Mean(50, 2.0, 1.0)), CannotTell)
    assert isinstance(compare(Ratio(0, 0, 0, 0, 0, 0, 0), Ratio(0, 0, 0, 0, 0, 0, 0)), CannotTell)
    assert isinstance(compare(Mean(50, 1.0, 1.0), Proportion(50, 3)), CannotTell)


@pytest.mark.parametrize(
    "make", [lambda: Proportion(5, 6), lambda: Proportion(-1, 0), lambda: Mean(5, 0, -1), lambda: Mean(-1, 0, 1)]
)
def test_sums_that_no_data_can_give_are_refused(make) -> None:
    with pytest.raises(ValueError, match=r" is | of "):
        make()


def test_a_rate_with_few_events_counts_the_trials_of_a_unit_as_one() -> None:
    """300 users with 33 attempts each, no error: bounds of 300 trials, not of 10,000."""
    clean = Ratio(300, 0.0, 9900.0, 0.0, 300 * 33.0**2, 0.0, 0)
    found = always_valid.estimate(clean, rate=True)
    assert isinstance(found, Estimate)
    assert found.ci == pytest.approx(rate_bounds(0, 300, 0.05))
    assert isinstance(always_valid.estimate(clean), CannotTell)
    all_failed = Ratio(300, 9900.0, 9900.0, 300 * 33.0**2, 300 * 33.0**2, 300 * 33.0**2, 300)
    found = always_valid.estimate(all_failed, rate=True)
    assert isinstance(found, Estimate)
    assert found.ci == pytest.approx(rate_bounds(300, 300, 0.05))
