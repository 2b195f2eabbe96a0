"""Which ranker serves: the simplest within 1 % of the best, unless another was asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts.serving import Ranker
from tests.unit.leakage.leaky_rows import FREE, HONEST, SCHEMA, honest_rows
from training.models.dcn_v2 import RankingRows, user_ndcg
from training.models.fitted import Fitted, Written, of_logistic, pick
from training.models.logistic import fit_logistic

NAMES: tuple[Ranker, ...] = ("linear", "trees", "dcn")
HELD_OUT = honest_rows(users=60, seed=2)
TRUTH = HELD_OUT.rows[:, SCHEMA.at(HONEST)]
NOISE = np.random.default_rng(0).standard_normal(len(TRUTH)).astype(np.float32)


def scorer(name: Ranker, scores: np.ndarray) -> Fitted:
    nothing = np.zeros(len(SCHEMA.columns), bool)
    return Fitted(name, lambda rows: scores, lambda rows: scores, nothing, lambda folder, rows: Written({}, 0.0))


def by_column(name: Ranker, column: str) -> Fitted:
    def score(rows: np.ndarray) -> np.ndarray:
        return rows[:, SCHEMA.at(column)]

    return replace(scorer(name, NOISE), logits=score, predict=score)


def three(linear: np.ndarray, trees: np.ndarray, dcn: np.ndarray) -> list[Fitted]:
    return [scorer(name, scores) for name, scores in zip(NAMES, (linear, trees, dcn), strict=True)]


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ((TRUTH, TRUTH, TRUTH), "linear"),
        ((NOISE, TRUTH, TRUTH), "trees"),
        ((NOISE, NOISE, TRUTH), "dcn"),
        ((NOISE, TRUTH, NOISE), "trees"),
    ],
)
def test_the_simplest_of_those_that_are_as_good_is_chosen(scores: tuple[np.ndarray, ...], chosen: Ranker) -> None:
    why = pick(three(*scores), [HELD_OUT], "of a test")
    assert why.name == chosen
    assert set(why.ndcg) == set(NAMES)
    assert f"{chosen} {why.ndcg[chosen]:.4f}" in why.why
    assert why.figures[f"choice_ndcg@10_{chosen}"] == why.ndcg[chosen]
    assert why.behind[chosen].value == 0


def test_users_of_several_moments_count_alike_and_what_is_lacked_is_paired_over_them() -> None:
    few = HELD_OUT.take(np.arange(5))
    linear, dcn = by_column("linear", FREE), by_column("dcn", HONEST)
    why = pick([linear, dcn], [few, HELD_OUT], "of two moments")
    own = [np.concatenate([user_ndcg(one.logits(d.rows), d) for d in (few, HELD_OUT)]) for one in (linear, dcn)]
    lacks = own[1] - own[0]
    assert why.name == "dcn"
    assert why.ndcg["dcn"] == pytest.approx(own[1].mean())
    assert why.behind["linear"].value == pytest.approx(lacks.mean())
    assert why.behind["linear"].se == pytest.approx(lacks.std(ddof=1) / np.sqrt(len(lacks)))
    assert why.figures["choice_behind_linear_se"] == why.behind["linear"].se
    assert f"of {len(lacks)} users" in why.why


def test_who_puts_the_dear_wish_first_is_better_by_what_it_is_worth() -> None:
    """Two wishes, worth 3 and 1: in the other order the first two places give (1 + 3/log2 3) of (3 + 1/log2 3)."""
    rows = np.zeros((3, len(SCHEMA.columns)), np.float32)
    wishes = RankingRows(rows, np.array([1, 1, 0], np.int8), np.array([0, 3]), ("u",), np.array([3, 1, 1], np.float32))
    dear_first, cheap_first = np.array([3, 2, 1], np.float32), np.array([2, 3, 1], np.float32)
    assert user_ndcg(dear_first, wishes).tolist() == [1.0]
    assert user_ndcg(cheap_first, wishes) == pytest.approx([(1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3))])
    assert pick(three(cheap_first, dear_first, cheap_first), [wishes], "of a test").name == "trees"
    alike = RankingRows(rows, wishes.labels, wishes.indptr)
    assert pick(three(cheap_first, dear_first, cheap_first), [alike], "of a test").name == "linear"


def test_the_one_that_was_asked_for_is_taken_whatever_the_figures() -> None:
    why = pick([scorer("dcn", NOISE)], [HELD_OUT], "asked for")
    assert why.name == "dcn"
    assert "asked for: dcn" in why.why
    assert not why.behind


def test_without_a_wish_the_simplest_is_taken() -> None:
    nobody = RankingRows(HELD_OUT.rows, np.zeros_like(HELD_OUT.labels), HELD_OUT.indptr)
    why = pick(three(NOISE, TRUTH, TRUTH), [nobody], "of a test")
    assert why.name == "linear"
    assert why.figures == {}


def test_the_linear_ranker_is_written_as_it_scores(tmp_path: Path) -> None:
    model = fit_logistic(SCHEMA, honest_rows(), HELD_OUT, seed=0)
    linear = of_logistic(model, SCHEMA)
    written = linear.write(tmp_path, HELD_OUT.rows)
    assert written.params == {"format": "numpy"}
    assert written.difference < 1e-6
    assert (tmp_path / "linear.npz").exists()
    assert linear.reads[SCHEMA.at(HONEST)]
    assert not linear.reads[SCHEMA.at("country")]
    p = model.predict(HELD_OUT.rows)
    assert np.allclose(1 / (1 + np.exp(-linear.logits(HELD_OUT.rows))), p, atol=1e-5)


def test_a_person_of_two_moments_is_one_person_and_two_users() -> None:
    two = RankingRows(np.zeros((5, 1), np.float32), np.zeros(5, np.int8), np.array([0, 2, 3, 5]), ("b", "a", "b"))
    assert two.users.tolist() == [0, 0, 1, 2, 2]
    assert two.people.tolist() == [1, 1, 0, 1, 1]
    assert replace(two, user_ids=()).people.tolist() == [0, 0, 1, 2, 2]
