"""Figures that the project measured with other implementations before this code was written (its sheet of facts)."""

import pytest

from monitoring.statistics import always_valid, srm
from monitoring.statistics.estimates import CannotTell, Estimate
from monitoring.statistics.mix import mix_p
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


def test_mixes_that_are_one_and_mixes_that_are_not() -> None:
    full = {"full": Ratio(1000, 3000, 3000, 10_000, 10_000, 10_000, 1000)}
    assert mix_p(full, full) == 1.0
    half = {r: Ratio(1000, 1500, 3000, 3000, 10_000, 5000, 900) for r in ("full", "popularity")}
    p = mix_p(full, half)
    assert isinstance(p, float)
    assert p < 1e-6
