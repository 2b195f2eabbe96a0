"""Who serves is asked across time: whoever knows the items of a moment by name is a stranger at the next one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bentos.recommender.rankers.formats import named, open_ranker
from contracts.dataset import DatasetConfig, Positive
from tests.unit.leakage.leaky_rows import FREE, HONEST, SCHEMA
from training import ranking
from training.bundles import write_ranking
from training.models.dcn_v2 import DcnConfig, RankingRows
from training.models.trees import TreesConfig
from training.ranking import Rankers, RankingConfig, fit_rankers, newest

ITEMS, EACH, USERS = 40, 30, 150
DCN = DcnConfig(cross_layers=1, hidden=(4,), epochs=1, min_steps=2)
TREES = TreesConfig(rounds=60, leaves=8, learning_rate=0.2, min_rows_in_leaf=20, column_share=1.0)


def moment(seed: int) -> RankingRows:
    """`FREE` is the exact figure of an item, wanted or not at this moment only; `HONEST` holds at every one."""
    random = np.random.default_rng(seed)
    rows = np.zeros((USERS * EACH, len(SCHEMA.columns)), np.float32)
    item = random.integers(0, ITEMS, len(rows))
    rows[:, SCHEMA.at(FREE)] = np.linspace(-1, 1, ITEMS)[item]
    rows[:, SCHEMA.at(HONEST)] = random.standard_normal(len(rows))
    liked = np.random.default_rng(100 + seed).permutation(np.linspace(-3, 3, ITEMS))[item]
    chance = 1 / (1 + np.exp(3 - 1.2 * rows[:, SCHEMA.at(HONEST)] - liked))
    labels = (random.random(len(rows)) < chance).astype(np.int8)
    names = tuple(f"u{at}" for at in range(USERS))
    return RankingRows(rows, labels, np.arange(0, len(rows) + 1, EACH), names)


@pytest.fixture
def of_moments(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rankers fitted on drawn rows in place of a funnel's, of so many moments."""

    def fit(n: int, draw: Callable[[int], RankingRows] = moment, **config: Any) -> Rankers:
        parts = {n - at: draw(at) for at in range(n)}
        gathered = SimpleNamespace(table=lambda score: None)
        monkeypatch.setattr(ranking, "moments", lambda *given: sorted(parts, reverse=True))
        monkeypatch.setattr(ranking, "collect", lambda f, c, moment_us, *given, **options: (parts[moment_us], gathered))
        return fit_rankers(
            Path(),
            DatasetConfig(name="drawn", positives=(Positive(event="click"),)),
            n + 1,
            lambda until_us, folder: None,  # type: ignore[arg-type,return-value]
            seed=0,
            ranking=RankingConfig(**config),
            dcn=DCN,
            trees=TREES,
        )

    return fit


def test_at_one_moment_the_trees_look_best_as_they_know_its_items(of_moments: Any) -> None:
    rankers = of_moments(1, ranker="best")
    assert rankers.pick.ndcg["trees"] > rankers.pick.ndcg["linear"] + 0.1
    assert rankers.ranker.name == rankers.pick.name != "linear"
    assert "only moment" in rankers.pick.why


def test_across_time_the_one_that_still_holds_is_chosen_and_learns_from_all(of_moments: Any) -> None:
    rankers = of_moments(2, ranker="best")
    assert rankers.pick.ndcg["linear"] > rankers.pick.ndcg["trees"]
    assert (rankers.ranker.name, rankers.pick.name) == ("linear", "linear")
    assert rankers.figures["choice_ndcg@10_linear"] == rankers.pick.ndcg["linear"]
    assert rankers.figures["ranker_rows"] == 2 * USERS * EACH


def test_it_is_the_default_and_asks_the_newest_third_of_the_moments(of_moments: Any) -> None:
    assert [newest(n) for n in (2, 3, 4, 5, 8, 12)] == [1, 1, 1, 2, 3, 4]
    rankers = of_moments(5)
    assert rankers.pick.name == "linear"
    assert set(rankers.pick.ndcg) == {"linear", "trees", "dcn", "ensemble"}
    assert "at the last 2 moments, learned at the 3 before" in rankers.pick.why
    assert rankers.pick.behind["trees"].n == rankers.pick.behind["linear"].n > 1.5 * USERS
    assert rankers.figures["choice_behind_trees"] > 2 * rankers.figures["choice_behind_trees_se"] > 0


def with_a_step(seed: int) -> RankingRows:
    """A chance that no sigmoid of a column follows."""
    data = moment(seed)
    chance = np.where(data.rows[:, SCHEMA.at(HONEST)] > 0.5, 0.3, 0.01)
    labels = (np.random.default_rng(seed).random(len(chance)) < chance).astype(np.int8)
    return replace(data, labels=labels)


def test_where_isotonic_wins_it_is_what_is_exported_and_what_its_own_figures_are_of(
    of_moments: Any, tmp_path: Path
) -> None:
    rankers = of_moments(3, with_a_step, ranker="linear", held_out_share=0.5)
    assert rankers.calibration.chosen == "isotonic"
    bundle, difference = write_ranking(
        tmp_path / "ranking",
        rankers.ranker,
        SCHEMA,
        rankers.sample,
        feature_hash="",
        catalogue_hash="",
        signature=SCHEMA.signature,
        n_items=1,
        trained_until_us=1,
        clock="wall",
        log_end_us=1,
    )
    assert bundle.manifest.params["calibration"] == "isotonic"
    assert difference < 1e-4
    rows = with_a_step(9).rows
    what = named(bundle.manifest)
    served = open_ranker(bundle.path(what.file), what, rows.shape[1], 1)[0].score(rows)
    assert served == pytest.approx(rankers.ranker.predict(rows), abs=1e-4)
    low = rows[:, SCHEMA.at(HONEST)] < -0.5
    assert served[low].mean() < 0.015  # Platt's line is above .02 here, and below the half of it further down
    assert set(rankers.importance) == set(SCHEMA.names)


@pytest.mark.parametrize("asked", ["trees", "ensemble"])
def test_the_one_that_was_asked_for_is_fitted_and_nothing_else_judged(asked: str, of_moments: Any) -> None:
    rankers = of_moments(2, ranker=asked)
    assert rankers.ranker.name == rankers.pick.name == asked
    assert set(rankers.pick.ndcg) == {asked}
    assert rankers.reads[HONEST]
    assert rankers.importance[HONEST] > 0


def test_side_by_side_both_become_what_they_are_alone(of_moments: Any) -> None:
    rows = moment(9).rows
    scores = {name: of_moments(2, ranker=name).ranker.logits(rows) for name in ("trees", "dcn", "ensemble")}
    both = (scores["trees"] + scores["dcn"]) / 2
    slope, offset = np.polyfit(both, scores["ensemble"], 1)  # the ensemble is calibrated anew: a line of their mean
    assert scores["ensemble"] == pytest.approx(slope * both + offset, abs=1e-3)


def test_a_network_that_fails_ends_the_trees_beside_it(of_moments: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Event] = []

    def fails(*_: Any, **__: Any) -> None:
        raise ArithmeticError("no loss to follow")

    def trees(*_: Any, unwanted: Event, **__: Any) -> None:
        given.append(unwanted)
        assert unwanted.wait(60)

    monkeypatch.setattr(ranking, "fit_dcn", fails)
    monkeypatch.setattr(ranking, "fit_trees", trees)
    with pytest.raises(ArithmeticError, match="no loss"):
        of_moments(2, ranker="ensemble")
    assert given[0].is_set()
