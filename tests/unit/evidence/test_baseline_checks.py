"""A funnel beside its baselines: by figures of users that are made up, so that means and errors are known by hand."""

from collections.abc import Mapping

import numpy as np
import pytest

from training.assess import Evaluation
from training.baseline_checks import SIMPLE, STRONG, baselines, beaten, metrics, union
from training.evaluation.alone import Alone
from training.evaluation.ladder import Entry, Family, ladder
from training.evaluation.metrics import Estimate
from training.evaluation.report import Scores, score_ranker

USERS = np.array([0.1, 0.3, 0.2, 0.4, 0.1, 0.3, 0.2, 0.4])  # mean 0.25
WOBBLE = 0.01 * np.array([1.0, -1.0] * 4)  # its standard error is 0.01 / √7 = 0.0038
FAMILIES: Mapping[str, Family] = {
    "popularity": "heuristic",
    "recency_popularity_14d": "heuristic",
    "two_stage": "boosted trees",
}


def of(name: str, own: Mapping[str, np.ndarray]) -> Scores:
    return Scores(name, {metric: Estimate.of(values) for metric, values in own.items()}, by_user=own)


def scores(name: str, ndcg: float, recall: float = 0.5) -> Scores:
    """Of everybody `ndcg` more than `USERS`, give or take."""
    return of(name, {"ndcg@10": USERS + ndcg + WOBBLE, "recall@500": USERS + recall + WOBBLE})


def judged(
    others: Mapping[str, float | None],
    *,
    funnel: float = 0.2,
    plain: float = 0.2,
    recall: float = 0.5,
    sources: Mapping[str, float] | None = None,
) -> Evaluation:
    """others: baseline → how much more than `USERS`, None where it was not run. The funnel's own wobble is the other
    way round, so that no difference is without an error."""
    mine = (scores("funnel", funnel, recall), scores("funnel (no rules)", plain, recall))
    ours = [of(one.name, {metric: own - 2 * WOBBLE for metric, own in one.by_user.items()}) for one in mine]
    below = [
        Scores(name, {}, not_run="too many") if gain is None else scores(name, gain) for name, gain in others.items()
    ]
    entries = [Entry(FAMILIES.get(one.name, "linear"), one) for one in below]
    alone = tuple(Alone(scores(name, 0.0, recall)) for name, recall in (sources or {}).items())
    ranker = score_ranker(np.empty(0), np.empty(0, np.int8), np.empty(0, np.int64))
    steps = ladder([*entries, Entry("deep", ours[1])])
    return Evaluation(0, 1, 8, 8, 8, ours[0], ours[1], tuple(below), steps, ranker, {}, 1.0, alone=alone)


ALL = dict.fromkeys((*SIMPLE, *STRONG), 0.0)


def test_above_all_that_decide_is_a_pass() -> None:
    found = judged(ALL)
    assert metrics(found).verdict == "pass"
    assert baselines(found).verdict == "pass"
    assert set(beaten(found)) == set(ALL)


@pytest.mark.parametrize("name", [*SIMPLE, *STRONG])
def test_surely_below_one_of_them_fails_and_says_which(name: str) -> None:
    check = metrics(judged(ALL | {name: 0.3}))
    assert check.verdict == "fail"
    assert f"surely below {name}: -0.1000 ± 0.0076" in check.detail


def test_level_with_a_simple_one_is_open_and_level_with_a_strong_one_is_not_below_it() -> None:
    for name in SIMPLE:
        assert metrics(judged(ALL | {name: 0.2})).verdict == "inconclusive"
    for name in STRONG:
        assert metrics(judged(ALL | {name: 0.2})).verdict == "pass"


def test_the_strong_ones_are_met_without_rules_and_the_simple_ones_as_it_serves() -> None:
    """The price of the rules is not the models': 0.1 lost to them, and level with the two-stage trees without."""
    assert metrics(judged(ALL | {"two_stage": 0.2}, funnel=0.1, plain=0.2)).verdict == "pass"
    assert metrics(judged(ALL | {"ease": 0.2}, funnel=0.1, plain=0.2)).verdict == "fail"


def test_without_one_that_decides_nothing_is_known() -> None:
    assert metrics(judged({"item_knn": 0.0})).verdict == "inconclusive"
    assert metrics(judged({"ease": None, "blend": None})).verdict == "inconclusive"
    assert "ease not run (too many)" in metrics(judged({"ease": None, "popularity": 0.0})).detail


def test_what_is_surely_not_worth_its_cost_holds_a_release_up_until_a_person_takes_it_on() -> None:
    check = baselines(judged(ALL | {"two_stage": 0.205}))  # as good, to the last per cent
    assert "not worth it" not in check.detail  # 0.005 ± 0.0076: not sure
    assert (check.verdict, check.holds_up) == ("inconclusive", False)
    check = baselines(judged(ALL | {"two_stage": 0.212}))
    assert "funnel (no rules) is not worth it" in check.detail
    assert (check.verdict, check.holds_up) == ("inconclusive", True)


def test_a_simpler_model_that_is_surely_better_fails_whichever_it_is() -> None:
    check = baselines(judged({"popularity": 0.0, "item_knn": 0.3}))
    assert check.verdict == "fail"
    assert check.holds_up


def test_a_ladder_with_a_rung_that_was_not_run_is_not_whole() -> None:
    check = baselines(judged(ALL | {"two_stage": None}))
    assert (check.verdict, check.holds_up) == ("inconclusive", False)
    assert "not run: two_stage" in check.detail


def test_a_union_that_finds_surely_less_than_one_of_its_sources_fails() -> None:
    sources = {"graph": 0.3, "trending": 0.1}
    assert union(judged(ALL, sources=sources, recall=0.5)).verdict == "pass"
    worse = union(judged(ALL, sources=sources, recall=0.2))
    assert worse.verdict == "fail"
    assert "graph" in worse.detail
    assert union(judged(ALL, sources=sources, recall=0.299)).verdict == "inconclusive"
    assert union(judged(ALL)).verdict == "inconclusive"
