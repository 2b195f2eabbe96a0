"""What an error costs moves every ranker's fit, and moves no probability off the labels."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from contracts.framing import Costs
from tests.unit.leakage.leaky_rows import FREE, HONEST, SCHEMA
from training.models.dcn_v2 import DcnConfig, RankingRows, fit_dcn, predict
from training.models.logistic import fit_logistic
from training.models.trees import TreesConfig, fit_trees

DCN = DcnConfig(
    cross_layers=1, hidden=(8,), epochs=2, min_steps=50, noise=0.0, forget=0.0, dropout=0.0, learning_rate=1e-2
)
TREES = TreesConfig(rounds=60, leaves=4, min_rows_in_leaf=20, column_share=1.0)

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]
FITS: dict[str, Callable[[RankingRows, RankingRows, Costs], Predict]] = {
    "linear": lambda learn, check, costs: fit_logistic(SCHEMA, learn, check, seed=0, costs=costs).predict,
    "trees": lambda learn, check, costs: fit_trees(SCHEMA, learn, check, seed=0, config=TREES, costs=costs).predict,
    "dcn": lambda learn, check, costs: partial(predict, fit_dcn(SCHEMA, learn, check, seed=0, config=DCN, costs=costs)),
}


def shop(seed: int, dear: float = 1.0, users: int = 150, each: int = 40) -> RankingRows:
    """Wishes follow two columns alike; those of rows where the first is above the second are worth `dear`."""
    random = np.random.default_rng(seed)
    rows = np.zeros((users * each, len(SCHEMA.columns)), np.float32)
    a, b = (SCHEMA.at(name) for name in (HONEST, FREE))
    rows[:, [a, b]] = random.standard_normal((len(rows), 2))
    chance = 1 / (1 + np.exp(3 - rows[:, a] - rows[:, b]))
    labels = (random.random(len(rows)) < chance).astype(np.int8)
    gains = np.where(rows[:, a] > rows[:, b], np.float32(dear), np.float32(1))
    return RankingRows(rows, labels, np.arange(0, len(rows) + 1, each), tuple(map(str, range(users))), gains)


@pytest.mark.parametrize("name", list(FITS))
def test_a_ranker_leans_to_the_wishes_that_are_worth_more(name: str) -> None:
    """Two rows that are wished for alike: the one whose wishes are worth nine times as much comes first, surely."""
    rows = np.zeros((2, len(SCHEMA.columns)), np.float32)
    rows[[0, 1], [SCHEMA.at(HONEST), SCHEMA.at(FREE)]] = 1.5
    plain = FITS[name](shop(1), shop(2), Costs())(rows)
    leaning = FITS[name](shop(1, 9), shop(2, 9), Costs())(rows)
    assert abs(np.log(plain[0] / plain[1])) < 0.35
    assert np.log(leaning[0] / leaning[1]) > 0.5


@pytest.mark.parametrize("name", list(FITS))
def test_the_costs_of_errors_move_the_fit_and_probabilities_stay_those_of_the_labels(name: str) -> None:
    learn, check = shop(1), shop(2)
    plain, careful = (FITS[name](learn, check, Costs(false_negative=cost))(check.rows) for cost in (1.0, 20.0))
    assert np.abs(np.log(plain / careful)).max() > 0.02
    assert careful.mean() == pytest.approx(check.labels.mean(), rel=0.1)
