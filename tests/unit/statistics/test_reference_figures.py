"""Figures that the project measured with other implementations before this code was written (its sheet of facts)."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.power import zt_ind_solve_power
from statsmodels.stats.proportion import confint_proportions_2indep
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from monitoring.statistics import always_valid, fixed, score, sequential, srm
from monitoring.statistics.estimates import CannotTell, Estimate
from monitoring.statistics.mix import mix_p
from monitoring.statistics.power import Design, bernoulli_variance, least_effect, power_at, sample_size
from monitoring.statistics.samples import Mean, Proportion, Ratio


def test_the_always_valid_interval_of_two_means() -> None:
    found = always_valid.compare(Mean(5000, 10.2, 4.1), Mean(5200, 10.45, 4.4))
    assert isinstance(found, Estimate)
    assert found.effect == pytest.approx(0.25)
    assert found.ci[1] - found.effect == pytest.approx(0.2578157, abs=1e-7)
    assert found.p == pytest.approx(0.065093, abs=1e-6)


def test_the_sample_ratio_of_10_000_to_10_400() -> None:
    assert srm.chi_square([10_000, 10_400], [0.5, 0.5]) == pytest.approx(0.0051014, abs=1e-7)
    assert srm.always_valid([10_000, 10_400], [0.5, 0.5]) > 0.0051014


def test_few_events_are_judged_on_off_and_nothing_is_made_of_nothing() -> None:
    found = always_valid.compare(Proportion(400, 0), Proportion(400, 25))
    assert isinstance(found, Estimate)
    assert found.on_off
    assert found.p is not None
    assert (found.p < 0.05) == (found.ci[0] > 0)
    assert isinstance(always_valid.compare(Mean(50, 1.0, 0.0), Mean(50, 2.0, 0.0)), CannotTell)
    assert isinstance(always_valid.compare(Proportion(0, 0), Proportion(9, 1)), CannotTell)
    assert isinstance(always_valid.compare(Mean(50, float("nan"), 1.0), Mean(50, 2.0, 1.0)), CannotTell)


def test_the_e_value_of_a_rate_is_the_likelihood_averaged_over_jeffreys_prior() -> None:
    """By SciPy's quadrature, q = sin²φ: the prior is flat in φ."""
    average, _ = quad(lambda f: math.sin(f) ** 6 * math.cos(f) ** 14, 0, math.pi / 2)
    expected = math.log(average * 2 / math.pi) - math.log(0.2**3 * 0.8**7)
    assert always_valid.log_e_value(3, 10, 0.2) == pytest.approx(expected)


def test_mixes_that_are_one_and_mixes_that_are_not() -> None:
    full = {"full": Ratio(1000, 3000, 3000, 10_000, 10_000, 10_000, 1000)}
    assert mix_p(full, full) == 1.0
    half = {r: Ratio(1000, 1500, 3000, 3000, 10_000, 5000, 900) for r in ("full", "popularity")}
    p = mix_p(full, half)
    assert isinstance(p, float)
    assert p < 1e-6


def test_welch_of_the_same_means() -> None:
    found = fixed.compare(Mean(5000, 10.2, 4.1), Mean(5200, 10.45, 4.4))
    assert isinstance(found, Estimate)
    assert found.p == pytest.approx(0.0029842, abs=1e-7)
    low, high = CompareMeans(_with(5200, 10.45, 4.4), _with(5000, 10.2, 4.1)).tconfint_diff(usevar="unequal")
    assert found.ci == pytest.approx((low, high), abs=1e-9)  # statsmodels on data of these moments


def _with(n: int, mean: float, sd: float) -> DescrStatsW:
    values = np.random.default_rng(0).normal(size=n)
    return DescrStatsW(mean + sd * (values - values.mean()) / values.std(ddof=1))


def test_two_proportions_against_statsmodels_and_a_published_score_interval() -> None:
    found = fixed.compare(Proportion(10_000, 480), Proportion(10_000, 560))
    assert isinstance(found, Estimate)
    assert found.ci == pytest.approx(confint_proportions_2indep(560, 10_000, 480, 10_000, method="wald"), abs=1e-12)
    # Newcombe (1998), table II, 56/70 and 48/80, method 6.
    assert score.interval(Proportion(80, 48), Proportion(70, 56), 0.05)[:2] == pytest.approx((0.0528, 0.3382), abs=5e-5)


def test_the_relative_effect_is_symmetric_in_the_logarithm() -> None:
    found = fixed.relative(Proportion(10_000, 500), Proportion(10_000, 550))
    assert isinstance(found, Estimate)
    assert found.effect == pytest.approx(0.1)
    assert math.log1p(found.ci[0]) + math.log1p(found.ci[1]) == pytest.approx(2 * math.log(1.1))
    ratio = confint_proportions_2indep(550, 10_000, 500, 10_000, compare="ratio", method="log")
    assert found.ci == pytest.approx([r - 1 for r in ratio], abs=1e-9)
    assert isinstance(fixed.relative(Mean(50, -1.0, 1.0), Mean(50, 1.0, 1.0)), CannotTell)


def test_the_delta_method_is_that_of_a_regression_with_errors_clustered_by_user() -> None:
    """The variance of a ratio of sums is the cluster-robust one of the mean over impressions (statsmodels OLS)."""
    rng = np.random.default_rng(1)
    y = 1 + rng.poisson(5, 400)
    x = rng.binomial(y, rng.beta(1, 9, 400))
    users = np.repeat(np.arange(400), y)
    clicks = np.concatenate([np.repeat([1.0, 0.0], [a, b - a]) for a, b in zip(x, y, strict=True)])
    fit = OLS(clicks, np.ones(len(clicks))).fit(cov_type="cluster", cov_kwds={"groups": users, "use_correction": False})
    found = Ratio.of(x.astype(float), y.astype(float))
    assert found.value == pytest.approx(fit.params[0])
    assert math.sqrt(found.variance * 399 / 400) == pytest.approx(fit.bse[0], rel=1e-9)


@pytest.mark.parametrize(("relative", "n"), [(0.10, 31_231), (0.03, 336_099)])
def test_sample_sizes_at_5_percent(relative: float, n: int) -> None:
    size = sample_size(0.05 * relative, bernoulli_variance(0.05), bernoulli_variance(0.05 * (1 + relative)), Design())
    assert (size.n_control, size.n_treatment) == (n, n)


def test_the_baseline_s_variance_in_both_arms_gives_too_little_power() -> None:
    """Libraries that do so find 29,826, which has 78.2 % power."""
    assert sample_size(0.005, *[bernoulli_variance(0.05)] * 2, Design()).n_control == 29_826
    power = power_at(0.005, bernoulli_variance(0.05), bernoulli_variance(0.055), 2 * 29_826, Design())
    assert power == pytest.approx(0.782, abs=5e-4)


def test_an_uneven_split_and_a_mean_against_statsmodels() -> None:
    size = sample_size(0.25, 16.0, 16.0, Design(split=0.2))
    first = zt_ind_solve_power(effect_size=0.25 / 4, alpha=0.05, power=0.8, ratio=4.0)
    assert size.n_treatment == math.ceil(first)
    assert size.n_control == math.ceil(4 * first)
    assert least_effect(16.0, 16.0, size.total, Design(split=0.2)) == pytest.approx(0.25, abs=1e-4)


def test_the_size_of_the_always_valid_test() -> None:
    """CTR 5 %, −10 %, power 0.8 of the last look: by hand, (r + 0.842)² (p₁q₁ + p₂q₂) / 0.005² an arm, where
    r = 3.372 is the radius at 128,504 units in all.
    """
    size = sample_size(-0.005, bernoulli_variance(0.05), bernoulli_variance(0.045), Design(method="sequential"))
    assert size.n_control == 64_252
    by_hand = (3.3718 + 0.84162) ** 2 * (0.05 * 0.95 + 0.045 * 0.955) / 0.005**2
    assert size.n_control == pytest.approx(by_hand, rel=2e-3)


def test_the_bounds_of_lan_and_demets_for_five_equal_looks() -> None:
    found = sequential.bounds([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found == pytest.approx((4.8769, 3.3570, 2.6803, 2.2898, 2.0310), abs=5e-5)


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
@pytest.mark.parametrize("information", [(0.2, 0.4, 0.6, 0.8, 1.0), (0.1, 0.7, 0.75)])
def test_bounds_spend_what_they_may_by_the_multivariate_normal_of_scipy(
    information: tuple[float, ...], spending: sequential.Spending
) -> None:
    found = np.array(sequential.bounds(information, spending=spending))
    t = np.array(information)
    correlation = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    inside = multivariate_normal(cov=correlation).cdf(found, lower_limit=-found)
    spent = 2 * sequential.SPENDING[spending](t[-1], 0.025)
    assert 1 - inside == pytest.approx(spent, abs=5e-5)


def test_looking_twenty_times_without_bounds_is_wrong_a_quarter_of_the_time() -> None:
    looks = [i / 20 for i in range(1, 21)]
    assert sequential.crossing(looks, [1.959964] * 20) == pytest.approx(0.247, abs=0.002)
    assert sequential.crossing(looks, sequential.bounds(looks)) == pytest.approx(0.05, abs=1e-8)
    assert sequential.bounds([1.0]) == pytest.approx((1.959964,))


@pytest.mark.parametrize("information", [[], [0.5, 0.5], [0.5, 0.4], [0.5, 1.1], [0.0, 1.0]])
def test_information_that_does_not_grow_is_refused(information: list[float]) -> None:
    with pytest.raises(ValueError, match="information grows"):
        sequential.bounds(information)
