"""Planted looks ahead: under a future that was drawn they show, in what changes and in what a ranker finds."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from contracts.dataset import DatasetConfig
from features.offline.items import item_features_as_of
from features.online.base import UserState
from features.ranking import row_schema
from registry.artifacts import Bundle
from training.data import read, synth
from training.fitting import Fitter
from training.holdout import time_of_share
from training.leakage import future
from training.leakage.future import Future, another_future, future_changes_nothing
from training.leakage.shuffled import rankers_again, shuffled_labels
from training.models.dcn_v2 import DcnConfig
from training.models.lightgcn import LightGCNConfig
from training.models.trees import TreesConfig
from training.models.two_tower import TwoTowerConfig
from training.retrieval import RetrievalConfig

NAN = float("nan")
FEW = RetrievalConfig(
    two_tower=TwoTowerConfig(min_steps=2, max_steps=2, batch=32, hidden=16),
    graph=LightGCNConfig(min_steps=2, max_steps=2, batch=32, dimensions=8),
)
World = tuple[Path, int, Bundle]


def fitted(folder: Path, cut_us: int, out: Path) -> Bundle:
    with Fitter(folder, DatasetConfig.read(folder), 0, FEW) as fit:
        return fit(cut_us, out)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("future")
    folder = root / "world"
    synth.write(folder, users=100, items=100, days=10, seed=1)
    cut_us = time_of_share(folder, 0.2)
    return folder, cut_us, fitted(folder, cut_us, root / "retrieval")


def looked(world: World) -> Future:
    folder, cut_us, bundle = world
    return another_future(folder, DatasetConfig.read(folder), cut_us, synth.END_US, bundle, seed=0)


def shuffled(found: Future) -> Any:
    again = rankers_again(row_schema(), "trees", DcnConfig(), TreesConfig(), 0)
    return shuffled_labels(found.rows, again, seed=0)


@pytest.fixture(scope="module")
def honest(world: World) -> Future:
    return looked(world)


def test_an_honest_log_is_the_same_under_another_future_and_labels_fall_to_chance(honest: Future) -> None:
    assert honest.problems == ()
    check = future_changes_nothing(honest, NAN)
    assert check.verdict == "pass"
    assert check.figures == {"compared_users": honest.users, "compared_rows": honest.compared}
    assert honest.users > 50
    assert honest.compared == len(honest.rows.labels) > 1_000
    assert honest.rows.labels.mean() == pytest.approx(future.WISHED, abs=0.02)
    check = shuffled(honest)
    assert check.verdict != "fail", check.detail
    assert all(abs(value - 0.5) < 0.05 for value in check.figures.values())


@pytest.mark.parametrize("nothing", [{"users": 0, "compared": 0}, {"users": 0}, {"compared": 0}])
def test_where_nobody_and_nothing_could_be_compared_it_is_not_known(honest: Future, nothing: dict[str, int]) -> None:
    empty = replace(honest, **nothing)  # type: ignore[arg-type]
    check = future_changes_nothing(empty, 0.7)
    assert check.verdict == "inconclusive"
    assert f"{empty.users} users and {empty.compared} rows of the ranker could be compared" in check.detail
    assert future_changes_nothing(replace(empty, problems=("a column",)), NAN).verdict == "fail"


def test_without_anybody_to_ask_nothing_is_compared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(future, "_latest_users", lambda *_: [])
    found = looked(world)
    assert (found.problems, found.users, found.compared) == ((), 0, 0)
    assert future_changes_nothing(found, NAN).verdict == "inconclusive"


def test_without_a_test_window_the_other_future_is_a_day(world: World) -> None:
    folder, cut_us, bundle = world
    found = another_future(folder, DatasetConfig.read(folder), cut_us, cut_us, bundle, seed=0)
    assert found.problems == ()
    assert found.rows.labels.any()


def test_features_of_items_that_count_what_is_to_come_are_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def ahead(folder: Path, _: int, item_ids: Any) -> Mapping[str, np.ndarray]:
        return item_features_as_of(folder, synth.END_US, item_ids)

    monkeypatch.setattr(future, "item_features_as_of", ahead)
    check = future_changes_nothing(looked(world), NAN)
    assert check.verdict == "fail"
    assert "item_pop_total at the cut changes with rows after it" in check.detail
    assert "columns of the ranker at the cut change with rows after it: log_item_pop_1d" in check.detail


def of_states(change: Callable[[UserState, UserState], UserState]) -> Callable[..., dict[str, UserState]]:
    """States in which something is of the log's end. change: (as of the moment, as of the end) → as planted."""
    honest = future.user_states_as_of

    def planted(folder: Path, user_ids: Any, moment_us: int) -> dict[str, UserState]:
        now, later = honest(folder, user_ids, moment_us), honest(folder, user_ids, synth.END_US)
        return {user: change(now[user], later[user]) for user in now}

    return planted


def test_a_taste_that_was_learned_from_the_labels_does_not_fall_to_chance(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares of categories as of the end: the very wishes that are to be told are in them."""
    taste = "user_category_preferences"

    def knows(now: UserState, later: UserState) -> UserState:
        return replace(
            now, batch={**now.batch, taste: replace(later.batch[taste], timestamp_us=now.batch[taste].timestamp_us)}
        )

    monkeypatch.setattr(future, "user_states_as_of", of_states(knows))
    found = looked(world)
    assert "user features at the cut change with rows after it" in found.problems
    assert any("category_share" in problem for problem in found.problems)
    check = shuffled(found)
    assert check.verdict == "fail", check.detail


def test_a_session_that_holds_what_is_to_come_changes_the_candidates(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(future, "user_states_as_of", of_states(lambda now, later: replace(now, last=later.last)))
    found = looked(world)
    assert any(problem.startswith("candidates of ") for problem in found.problems)


def test_an_auc_that_is_too_good_to_be_true_fails(honest: Future) -> None:
    assert future_changes_nothing(honest, 0.999).verdict == "fail"
    assert future_changes_nothing(honest, 0.8).verdict == "pass"


def test_a_fit_of_the_retrieval_models_reads_nothing_after_its_cut(world: World, tmp_path: Path) -> None:
    """What the other future leaves out: the arrays are the same without the rows after the cut."""
    folder, cut_us, bundle = world
    past = tmp_path / "past"
    shutil.copytree(folder, past)
    pq.write_table(read.interactions(folder, until_us=cut_us), past / "interactions.parquet")
    again = fitted(past, cut_us, tmp_path / "retrieval")
    names = sorted(path.name for path in bundle.folder.glob("*.npy"))
    assert len(names) > 10
    for name in names:
        mine, theirs = (np.load(one.folder / name) for one in (bundle, again))
        assert np.array_equal(mine, theirs), name
