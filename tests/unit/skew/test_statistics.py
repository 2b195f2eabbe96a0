"""A feature's statistics of training and serving side by side; expected figures by hand."""

import math

import pytest

from features.summaries import Summary
from monitoring.skew.limits import Limits
from monitoring.skew.statistics import compare


def numbers(mean=0.0, sd=1.0, null_rate=0.0, default_rate=None, n=100_000):
    return Summary(kind="number", n=n, null_rate=null_rate, default_rate=default_rate, mean=mean, sd=sd)


def words(null_rate=0.0, n=100_000, **categories):
    return Summary(kind="word", n=n, null_rate=null_rate, default_rate=None, categories=categories)


def one(training, served, *, users=100_000, limits=None, **more):
    (found,) = compare(
        {"f": training},
        {"f": served},
        training_users=100_000,
        served_users=users,
        limits=limits or Limits(),
        **more,
    )
    return found


@pytest.mark.parametrize(
    ("served", "verdict"),
    [
        (numbers(), "ok"),
        (numbers(mean=0.4), "ok"),
        (numbers(mean=0.6), "breach"),
        (numbers(mean=-0.6), "breach"),
        (numbers(sd=0.6), "ok"),
        (numbers(sd=0.4), "breach"),
        (numbers(sd=1.9), "ok"),
        (numbers(sd=2.1), "breach"),
        (numbers(null_rate=0.04), "ok"),
        (numbers(null_rate=0.06), "breach"),
        (numbers(default_rate=0.06), "breach"),  # a default is no value of its own
        (numbers(null_rate=0.03, default_rate=0.03), "breach"),
    ],
)
def test_each_of_the_three_measures_has_its_limit(served, verdict):
    assert one(numbers(), served).verdict == verdict


def test_the_shift_is_in_training_deviations_and_the_report_says_it():
    found = one(numbers(mean=10, sd=4), numbers(mean=13, sd=2))
    shift, ratio = (next(m for m in found.measures if m.name == name) for name in ("shift", "ratio"))
    assert shift.value == pytest.approx(0.75)
    assert ratio.value == pytest.approx(0.5)
    assert found.verdict == "breach"
    assert "shift +0.75" in found.why
    # Both sides' means have an error: √(0.5²/n + 1/n) deviations.
    assert shift.error == pytest.approx(math.sqrt(1.25 / 100_000))


def test_near_the_limit_a_small_window_is_inconclusive_and_a_large_one_is_not():
    shifted = numbers(mean=0.6)
    assert one(numbers(), shifted, users=30).verdict == "inconclusive"
    assert "too few users" in one(numbers(), shifted, users=30).why
    assert one(numbers(), shifted, users=3_000).verdict == "breach"
    assert one(numbers(), numbers(mean=3.0), users=30).verdict == "breach"


def test_limits_are_the_operators():
    strict = Limits(mean=0.1, deviation=0.9, missing=0.01)
    assert one(numbers(), numbers(mean=0.2), limits=strict).verdict == "breach"
    assert one(numbers(), numbers(sd=0.8), limits=strict).verdict == "breach"
    assert one(numbers(), numbers(null_rate=0.02), limits=strict).verdict == "breach"


@pytest.mark.parametrize(
    ("training", "served", "users", "why"),
    [
        (numbers(), numbers(), 1, "too few"),
        (numbers(), Summary(kind="number", n=100, null_rate=1.0, default_rate=None), 100_000, "missing +1"),
        (numbers(sd=0.0), numbers(), 100_000, "constant in training"),
        (Summary(kind="number", n=0, null_rate=None, default_rate=None), numbers(), 100_000, "kept no rows"),
        (numbers(), words(a=5), 100_000, "serving logged words"),
    ],
    ids=["one row", "all NaN", "constant", "nothing kept", "mixed types"],
)
def test_what_cannot_be_compared_says_why(training, served, users, why):
    found = one(training, served, users=users)
    assert why in found.why
    assert found.verdict == ("breach" if "missing" in why else "inconclusive")


def test_a_constant_feature_that_goes_missing_is_still_seen():
    assert one(numbers(sd=0.0), numbers(sd=0.0, null_rate=0.5)).verdict == "breach"


def test_new_and_dropped_columns_are_named():
    found = compare({"old": numbers()}, {"new": numbers()}, training_users=1000, served_users=1000, limits=Limits())
    assert {f.feature: (f.verdict, f.why) for f in found} == {
        "old": ("inconclusive", "nothing was logged of this feature"),
        "new": ("inconclusive", "training knew no such feature"),
    }


def test_words_that_training_never_met_are_a_measure():
    assert one(words(a=900, b=100), words(a=100, b=900)).verdict == "ok"  # shares are drift's business
    found = one(words(a=900, b=100), words(a=900, c=100))
    assert found.verdict == "breach"
    assert "unmet" in found.why


def test_a_trouble_of_one_feature_leaves_the_others_alone():
    found = compare(
        {"a": numbers(), "b": numbers()},
        {"b": numbers()},
        training_users=1000,
        served_users=1000,
        limits=Limits(),
        troubles={"a": "values of type string where numbers were expected"},
    )
    assert [(f.feature, f.verdict) for f in found] == [("a", "inconclusive"), ("b", "ok")]
