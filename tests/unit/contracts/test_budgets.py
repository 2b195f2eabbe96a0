import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.budgets import Budgets
from contracts.errors import UsageError
from contracts.settings import Settings, load_settings

ms = st.floats(0.01, 10_000)
budgets = st.builds(Budgets, ms, ms, ms, ms, ms, ms)


def test_the_references_budgets_fit_the_default_deadline():
    assert Budgets().critical_path_ms == 125
    Budgets().must_fit(Settings().deadline_ms)
    assert Settings().budgets == Budgets()


def test_a_request_with_all_its_time_has_the_references_moments():
    plan = Budgets().plan(0.0, 0.150)
    moments = (plan.features_until, plan.retrieval_until, plan.ranking_until, plan.answer_at, plan.deadline)
    assert moments == pytest.approx((0.045, 0.075, 0.125, 0.145, 0.150))
    assert (plan.read_s, plan.source_s) == (0.015, 0.030)


def test_a_shortened_deadline_shortens_every_budget_alike():
    plan = Budgets().plan(10.0, 10.0625)  # half of the critical path
    assert (plan.read_s, plan.source_s) == pytest.approx((0.0075, 0.015))
    assert plan.features_until == pytest.approx(10.010)  # the gateway's 2.5 ms and the features' 7.5
    assert plan.answer_at == pytest.approx(10.060)


def test_budgets_that_do_not_fit_refuse_to_start(tmp_path):
    (tmp_path / "streamrec.toml").write_text("deadline_ms = 100\n")
    with pytest.raises(UsageError, match=r"ranking 50 .* = 125 ms, and `deadline_ms` is 100; raise `deadline_ms`"):
        load_settings(environ={}, file=tmp_path / "streamrec.toml")
    (tmp_path / "streamrec.toml").write_text("deadline_ms = 100\nranking_budget_ms = 25\n")
    assert load_settings(environ={}, file=tmp_path / "streamrec.toml").budgets.ranking_ms == 25


@given(budgets, st.floats(0, 1e6), st.floats(0, 60))
@settings(deadline=None)
def test_whatever_the_budgets_every_stage_ends_before_the_next_must_and_all_before_the_deadline(
    given_budgets, began, s
):
    plan = given_budgets.plan(began, began + s)
    moments = [plan.features_until, plan.retrieval_until, plan.ranking_until, plan.answer_at, plan.deadline]
    assert moments == sorted(moments)
    assert plan.features_until >= began - 1e-6
    assert plan.read_s <= max(s, given_budgets.features_ms / 1e3)
    # A stage never has more than its own budget taken from those after it.
    assert plan.retrieval_until - plan.features_until <= given_budgets.retrieval_ms / 1e3 + 1e-6
    assert plan.read_s + plan.source_s <= s + 1e-9


@given(budgets, ms, ms)
@settings(deadline=None)
def test_less_time_never_gives_a_stage_more(given_budgets, one, other):
    short, long = sorted((one, other))
    a, b = given_budgets.plan(0.0, short / 1e3), given_budgets.plan(0.0, long / 1e3)
    assert a.read_s <= b.read_s
    assert a.source_s <= b.source_s
    for moment in ("features_until", "retrieval_until", "ranking_until", "answer_at"):
        assert getattr(a, moment) <= getattr(b, moment) + 1e-9


def test_without_a_deadline_there_are_no_limits():
    plan = Budgets().plan(5.0, math.inf)
    assert {plan.read_s, plan.source_s, plan.features_until, plan.answer_at} == {math.inf}
