"""What `experiment plan` and `experiment analyze` compute and refuse."""

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from contracts.errors import UsageError
from monitoring.experiments.analyze import analyze, read
from monitoring.experiments.plan import Question, plan

MEANS = {
    "metric": "mean",
    "method": "sequential",
    "tuning_n": 5000,
    "alpha": 0.05,
    "split": [0.5, 0.5],
    "arms": {"control": {"n": 5000, "mean": 10.2, "sd": 4.1}, "treatment": {"n": 5200, "mean": 10.45, "sd": 4.4}},
}
CLICKS = {
    "metric": "proportion",
    "method": "fixed",
    "arms": {"control": {"n": 10_000, "successes": 500}, "treatment": {"n": 10_000, "successes": 600}},
}


def answer(document: dict[str, Any]) -> dict[str, Any]:
    found = analyze(read(json.dumps(document).encode(), "arms.json"))
    assert {"effect", "ci", "p", "srm_p", "verdict", "convention"} <= found.keys()
    json.dumps(found, allow_nan=False)
    return found


def test_the_same_means_pass_at_one_look_and_are_open_at_any() -> None:
    any_look = answer(MEANS)
    assert any_look["verdict"] == "inconclusive"
    assert any_look["ci"] == pytest.approx([0.25 - 0.2578157, 0.25 + 0.2578157], abs=1e-7)
    assert any_look["p"] == pytest.approx(0.065093, abs=1e-6)
    assert "always valid" in any_look["convention"]
    one_look = answer(MEANS | {"method": "fixed"})
    assert one_look["verdict"] == "pass"
    assert one_look["p"] == pytest.approx(0.0029842, abs=1e-7)


def test_the_direction_says_which_side_is_better() -> None:
    assert answer(CLICKS)["verdict"] == "pass"
    assert answer(CLICKS | {"direction": "lower"})["verdict"] == "fail"


def test_arms_that_do_not_fit_the_split_leave_it_open() -> None:
    mismatch = CLICKS | {
        "arms": {"control": {"n": 10_000, "successes": 500}, "treatment": {"n": 11_000, "successes": 900}}
    }
    found = answer(mismatch)
    assert found["srm_p"] < 0.001
    assert found["ci"][0] > 0
    assert found["verdict"] == "inconclusive"
    assert "sample-ratio mismatch" in found["reason"]
    assert answer(mismatch | {"split": [10 / 21, 11 / 21]})["verdict"] == "pass"


@pytest.mark.parametrize("method", ["fixed", "sequential"])
def test_arms_that_do_not_vary_are_no_answer(method: str) -> None:
    same = {"control": {"n": 90, "mean": 1.0, "sd": 0.0}, "treatment": {"n": 90, "mean": 2.0, "sd": 0.0}}
    found = answer(MEANS | {"method": method, "arms": same})
    assert (found["effect"], found["ci"], found["p"], found["verdict"]) == (None, None, None, "inconclusive")
    assert found["reason"]


def test_few_events_say_so_in_the_convention() -> None:
    few = {"control": {"n": 500, "successes": 0}, "treatment": {"n": 500, "successes": 40}}
    found = answer(CLICKS | {"method": "sequential", "arms": few, "direction": "lower"})
    assert found["verdict"] == "fail"
    assert "on-off" in found["convention"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"colour": 1}, "colour"),
        ({"metric": "median"}, "metric"),
        ({"method": "bayes"}, "method"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": 1.5}, "alpha"),
        ({"split": [0.5, 0.6]}, "split"),
        ({"split": [1.0, 0.0]}, "split"),
        ({"split": [0.5]}, "split"),
        ({"tuning_n": 0}, "tuning_n"),
        ({"arms": {"control": {"n": 5, "mean": 1, "sd": 1}}}, "treatment"),
        ({"arms": MEANS["arms"] | {"control": {"n": 0, "mean": 1, "sd": 1}}}, "control.n"),
        ({"arms": MEANS["arms"] | {"control": {"n": 5.5, "mean": 1, "sd": 1}}}, "control.n"),
        ({"arms": MEANS["arms"] | {"control": {"n": True, "mean": 1, "sd": 1}}}, "control.n"),
        ({"arms": MEANS["arms"] | {"control": {"n": 5, "mean": 1, "sd": -1}}}, "control.sd"),
        ({"arms": MEANS["arms"] | {"control": {"n": 5, "mean": float("nan"), "sd": 1}}}, "control.mean"),
        ({"arms": MEANS["arms"] | {"control": {"n": 5, "mean": float("inf"), "sd": 1}}}, "control.mean"),
        ({"arms": MEANS["arms"] | {"control": {"n": 5, "successes": 1}}}, "control"),
        ({"metric": "proportion", "arms": CLICKS["arms"] | {"control": {"n": 5, "successes": 6}}}, "6 successes of 5"),
        ({"metric": "proportion", "arms": CLICKS["arms"] | {"control": {"n": 5, "successes": -1}}}, "successes"),
    ],
)
def test_a_file_that_breaks_its_contract_is_refused_by_the_key(change: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        answer(MEANS | change)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff\xfe", b"null"])
def test_what_is_no_document_is_refused(text: bytes) -> None:
    with pytest.raises(UsageError, match="no experiment to analyse"):
        read(text, "arms.json")


def test_a_plan_gives_arms_days_and_its_convention() -> None:
    found = plan(Question("proportion", 0.1, 0.05, relative=True, traffic=10_000))
    assert (found["n_control"], found["n_treatment"], found["days"]) == (31_231, 31_231, 7)
    assert "unpooled" in found["convention"]
    assert plan(Question("proportion", 0.005, 0.05))["n_control"] == 31_231
    assert plan(Question("proportion", -0.1, 0.05, relative=True, method="sequential"))["n_control"] == 64_252


def test_a_mean_needs_no_baseline_unless_the_effect_is_a_share_of_it() -> None:
    assert plan(Question("mean", 0.25, sd=4.0)) == plan(Question("mean", 0.025, 10.0, sd=4.0, relative=True))
    assert plan(Question("mean", 0.25, sd=4.0))["days"] is None


def test_five_looks_cost_a_few_percent_more_users_and_give_the_bounds_to_stop_at() -> None:
    """Their power by SciPy's multivariate normal: z at the looks has mean drift √t and correlation √(t / t')."""
    one, five = plan(Question("proportion", 0.005, 0.05)), plan(Question("proportion", 0.005, 0.05, looks=5))
    assert five["bounds"] == pytest.approx([4.8769, 3.3570, 2.6803, 2.2898, 2.0310], abs=5e-5)
    t = np.arange(1, 6) / 5
    drift = 0.005 * math.sqrt(five["n_control"] / (0.05 * 0.95 + 0.055 * 0.945))
    bounds = np.array(five["bounds"])
    z = multivariate_normal(drift * np.sqrt(t), np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t)))
    assert 1 - z.cdf(bounds, lower_limit=-bounds) == pytest.approx(0.8, abs=1e-3)
    assert one["n_control"] < five["n_control"] < 1.05 * one["n_control"]
    assert "Lan-DeMets" in five["convention"]


@pytest.mark.parametrize(
    ("question", "word"),
    [
        (Question("proportion", 0.1), "--baseline"),
        (Question("proportion", 0.1, 1.2), "--baseline"),
        (Question("proportion", 0.1, float("nan")), "--baseline"),
        (Question("proportion", 0.0, 0.05), "--effect"),
        (Question("proportion", float("inf"), 0.05), "--effect"),
        (Question("proportion", 0.99, 0.05), "--effect"),
        (Question("proportion", -2.0, 0.05, relative=True), "--effect"),
        (Question("proportion", 1e-12, 0.05), "too small"),
        (Question("proportion", 0.01, 0.05, sd=1.0), "--sd"),
        (Question("mean", 0.1), "--sd"),
        (Question("mean", 0.1, sd=0.0), "--sd"),
        (Question("mean", 0.1, sd=1.0, relative=True), "--baseline"),
        (Question("mean", 0.1, 0.0, sd=1.0, relative=True), "--effect"),
        (Question("proportion", 0.01, 0.05, power=1.0), "--power"),
        (Question("proportion", 0.01, 0.05, power=0.04), "power"),
        (Question("proportion", 0.01, 0.05, alpha=0.0), "--alpha"),
        (Question("proportion", 0.01, 0.05, split=1.0), "--split"),
        (Question("proportion", 0.01, 0.05, traffic=0.0), "--traffic"),
        (Question("proportion", 0.01, 0.05, tuning_n=0), "--tuning-n"),
        (Question("proportion", 0.01, 0.05, looks=0), "--looks"),
        (Question("proportion", 0.01, 0.05, looks=5, method="sequential"), "--looks"),
    ],
)
def test_a_question_without_an_answer_is_refused_by_its_option(question: Question, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        plan(question)
