"""Which ranker serves: the simplest within 1 % of the best, unless another was asked for."""

from pathlib import Path

import numpy as np
import pytest

from contracts.serving import Ranker
from tests.unit.leakage.leaky_rows import HONEST, SCHEMA, honest_rows
from training.models.dcn_v2 import RankingRows
from training.models.fitted import Fitted, Written, of_logistic, pick
from training.models.logistic import fit_logistic

NAMES: tuple[Ranker, ...] = ("linear", "trees", "dcn")
HELD_OUT = honest_rows(users=60, seed=2)
TRUTH = HELD_OUT.rows[:, SCHEMA.at(HONEST)]
NOISE = np.random.default_rng(0).standard_normal(len(TRUTH)).astype(np.float32)


def scorer(name: Ranker, scores: np.ndarray) -> Fitted:
    nothing = np.zeros(len(SCHEMA.columns), bool)
    return Fitted(name, lambda rows: scores, lambda rows: scores, nothing, lambda folder, rows: Written({}, 0.0))


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
    why = pick(three(*scores), HELD_OUT, "of a test")
    assert why.name == chosen
    assert set(why.ndcg) == set(NAMES)
    assert f"{chosen} {why.ndcg[chosen]:.4f}" in why.why
    assert why.figures[f"choice_ndcg@10_{chosen}"] == why.ndcg[chosen]


def test_the_one_that_was_asked_for_is_taken_whatever_the_figures() -> None:
    why = pick([scorer("dcn", NOISE)], HELD_OUT, "asked for")
    assert why.name == "dcn"
    assert "asked for: dcn" in why.why


def test_without_a_wish_the_simplest_is_taken() -> None:
    nobody = RankingRows(HELD_OUT.rows, np.zeros_like(HELD_OUT.labels), HELD_OUT.indptr)
    why = pick(three(NOISE, TRUTH, TRUTH), nobody, "of a test")
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
