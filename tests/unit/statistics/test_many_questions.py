"""Slices, shares of α and mixes of rungs."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from monitoring.statistics.always_valid import compare
from monitoring.statistics.estimates import CannotTell, Estimate
from monitoring.statistics.mix import mix_p, stratified_effect
from monitoring.statistics.multiplicity import benjamini_hochberg, compare_slices, share_alpha
from monitoring.statistics.samples import Proportion, Ratio


@pytest.mark.parametrize("seed", range(20))
def test_benjamini_hochberg_selects_what_statsmodels_selects(seed: int) -> None:
    p = np.random.default_rng(seed).beta(0.4, 2, 30)
    names = {str(i): float(v) for i, v in enumerate(p)}
    expected = {str(i) for i in np.flatnonzero(multipletests(p, 0.05, "fdr_bh")[0])}
    assert benjamini_hochberg(names, 0.05) == expected


def test_one_broken_slice_among_fifty_is_found_and_its_interval_pays_for_all() -> None:
    rng = np.random.default_rng(1)
    slices = {
        f"country={i}": (Proportion(4000, int(rng.binomial(4000, 0.1))), Proportion(4000, int(rng.binomial(4000, 0.1))))
        for i in range(49)
    }
    slices["country=broken"] = (Proportion(4000, 400), Proportion(4000, 200))
    slices["country=small"] = (Proportion(40, 4), Proportion(40, 0))
    found = compare_slices(slices)
    out = {n for n, e in found.items() if isinstance(e, Estimate) and not e.ci[0] <= 0 <= e.ci[1]}
    assert out == {"country=broken"}
    assert isinstance(found["country=small"], CannotTell)
    alone, paid = compare(*slices["country=broken"]), found["country=broken"]
    assert isinstance(alone, Estimate)
    assert isinstance(paid, Estimate)
    assert paid.ci[0] < alone.ci[0]
    assert paid.ci[1] > alone.ci[1]


def test_slices_without_any_effect_rarely_show_one() -> None:
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(200):
        clicks = rng.binomial(2000, 0.1, (20, 2))
        found = compare_slices(
            {str(i): (Proportion(2000, int(a)), Proportion(2000, int(b))) for i, (a, b) in enumerate(clicks)}
        )
        wrong += any(isinstance(e, Estimate) and not e.ci[0] <= 0 <= e.ci[1] for e in found.values())
    assert wrong <= 10  # 5 % of 200; always-valid intervals at one look are far below it


def test_alpha_is_shared_by_weight_and_no_slice_is_no_error() -> None:
    assert share_alpha({"errors": 3, "latency": 1}, 0.02) == pytest.approx({"errors": 0.015, "latency": 0.005})
    assert compare_slices({}) == {}
    with pytest.raises(ValueError, match="over 0"):
        share_alpha({"errors": 0}, 0.02)


def rungs(rng: np.random.Generator, users: int, popular: float, clustered: bool) -> dict[str, Ratio]:
    """Requests of each rung; clustered: a user is on one rung all the time."""
    requests = 1 + rng.poisson(4, users)
    share = rng.random(users) < popular if clustered else np.full(users, popular)
    low = rng.binomial(requests, share)
    whole = requests.astype(float)
    return {"full": Ratio.of((requests - low).astype(float), whole), "popularity": Ratio.of(low.astype(float), whole)}


def test_a_mix_that_differs_is_found_and_one_that_clusters_by_user_is_not_doubted() -> None:
    rng = np.random.default_rng(3)
    doubted = sum(
        p < 0.05
        for p in (mix_p(rungs(rng, 2000, 0.1, True), rungs(rng, 2000, 0.1, True)) for _ in range(200))
        if isinstance(p, float)
    )
    assert doubted <= 10
    p = mix_p(rungs(rng, 2000, 0.05, False), rungs(rng, 2000, 0.10, False))
    assert isinstance(p, float)
    assert p < 0.001


def test_the_p_of_a_mix_pays_for_the_number_of_rungs() -> None:
    rng = np.random.default_rng(5)
    control, treatment = rungs(rng, 3000, 0.10, False), rungs(rng, 3000, 0.125, False)
    alone = compare(control["full"], treatment["full"])
    assert isinstance(alone, Estimate)
    assert alone.p is not None
    assert 0 < alone.p < 0.5
    assert mix_p(control, treatment) == pytest.approx(
        2 * alone.p, rel=1e-6
    )  # the other rung's share is 1 minus this one's


def test_a_rung_that_one_arm_alone_has_is_a_difference() -> None:
    rng = np.random.default_rng(4)
    both = rungs(rng, 3000, 0.1, False)
    full = {"full": rungs(rng, 3000, 0.0, False)["full"]}
    p = mix_p(full, both)
    assert isinstance(p, float)
    assert p < 0.001


def test_one_rung_alone_is_one_mix_and_no_requests_are_none() -> None:
    full = {"full": Ratio(1000, 3000, 3000, 10_000, 10_000, 10_000, 1000)}
    assert mix_p(full, full) == 1.0
    assert isinstance(mix_p({}, full), CannotTell)


def test_the_stratified_effect_by_hand() -> None:
    """full: 0.10 → 0.12 on 3,000 impressions; popularity: 0.04 → 0.04 on 1,000. (3,000 × 0.02 + 0) / 4,000."""

    def clicks(x: float, y: float) -> Ratio:
        return Ratio(100, x, y, x, y * y / 100, x, 50)

    control = {"full": clicks(200, 2000), "popularity": clicks(8, 200)}
    treatment = {"full": clicks(120, 1000), "popularity": clicks(32, 800), "cached": clicks(1, 10)}
    assert stratified_effect(control, treatment) == pytest.approx(0.015)
    assert isinstance(stratified_effect({"full": clicks(1, 9)}, {"cached": clicks(1, 9)}), CannotTell)
