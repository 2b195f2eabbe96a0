"""The ladder's verdicts, from figures by user that are made up so that means and errors are known by hand."""

import json

import numpy as np
import pytest

from training.evaluation.ladder import Cost, Entry, Family, ladder, paired
from training.evaluation.metrics import Estimate
from training.evaluation.report import Scores


def entry(name: str, family: Family, values: np.ndarray | list[float], cost: Cost | None = None) -> Entry:
    own = np.asarray(values, np.float64)
    return Entry(family, Scores(name, {"ndcg@10": Estimate.of(own)}, by_user={"ndcg@10": own}), cost or Cost())


USERS = np.array([0.1, 0.3, 0.2, 0.4, 0.1, 0.3, 0.2, 0.4])  # mean 0.25
WOBBLE = np.array([1.0, -1.0] * 4)


def test_a_clear_gain_is_worth_it_and_becomes_what_the_next_is_measured_by() -> None:
    steps = ladder(
        [
            entry("popularity", "heuristic", USERS),
            entry("ease", "linear", USERS + 0.1 + 0.01 * WOBBLE),
            entry("trees", "boosted trees", USERS + 0.1 + 0.002 + 0.05 * WOBBLE),
            entry("network", "deep", USERS + 0.05),
        ]
    )
    assert steps.base == "popularity"
    assert [rung.verdict for rung in steps.rungs] == [None, "worth it", "inconclusive", "not worth it"]
    assert [rung.against for rung in steps.rungs] == ["", "popularity", "ease", "ease"]
    ease = steps.rung("ease")
    # Paired: the users' own spread does not enter. sd of ±0.01 over 8 users, n − 1: 0.01·√(8/7), over √8.
    assert (ease.gain.value, ease.gain.se) == pytest.approx((0.1, 0.01 / np.sqrt(7)))
    assert steps.rung("network").uplift.value == pytest.approx(0.05)
    assert "+40.0%" in ease.why


def test_a_gain_within_the_tolerance_is_not_worth_it_however_sure() -> None:
    steps = ladder([entry("a", "heuristic", USERS), entry("b", "linear", USERS + 0.002)])  # +0.8 %
    assert steps.rung("b").verdict == "not worth it"
    assert steps.choice == "a"
    strict = ladder([entry("a", "heuristic", USERS), entry("b", "linear", USERS + 0.002)], tolerance=0.0)
    assert (strict.rung("b").verdict, strict.choice) == ("worth it", "b")


def test_entries_are_compared_in_order_of_complexity_whatever_order_they_come_in() -> None:
    steps = ladder([entry("network", "deep", USERS + 0.1), entry("popularity", "heuristic", USERS)])
    assert [rung.name for rung in steps.rungs] == ["popularity", "network"]
    assert steps.choice == "network"


def test_what_cannot_be_told_from_zero_is_no_base() -> None:
    rare = [0.0] * 7 + [0.4]  # mean 0.05 = one standard error
    steps = ladder([entry("rare", "heuristic", rare), entry("ease", "linear", USERS)])
    assert steps.base == "ease"
    assert steps.rung("rare").verdict == "inconclusive"
    assert "zero" in steps.rung("rare").why


def test_a_model_that_was_not_run_is_inconclusive_with_its_reason() -> None:
    missing = Entry("linear", Scores("ease", {}, not_run="21000 items"))
    steps = ladder([entry("popularity", "heuristic", USERS), missing])
    assert steps.rung("ease").verdict == "inconclusive"
    assert steps.rung("ease").why == "not run: 21000 items"
    json.dumps(steps.plain(), allow_nan=False)


@pytest.mark.parametrize("values", [[], [0.3], [0.0, 0.0]])
def test_too_few_users_or_no_hit_at_all_give_no_verdict(values: list[float]) -> None:
    steps = ladder([entry("popularity", "heuristic", values), entry("network", "deep", values)])
    assert {rung.verdict for rung in steps.rungs} <= {"inconclusive", None}
    json.dumps(steps.plain(), allow_nan=False)


def test_figures_of_different_users_are_not_paired() -> None:
    one, other = entry("a", "linear", USERS).scores, entry("b", "linear", USERS[:5]).scores
    assert np.isnan(paired(one, other).value)


def test_costs_stand_beside_the_verdict() -> None:
    steps = ladder([entry("popularity", "heuristic", USERS, Cost(0.5, 40.0))])
    assert (steps.plain()["rungs"][0]["train_s"], steps.plain()["rungs"][0]["serve_us"]) == (0.5, 40.0)
