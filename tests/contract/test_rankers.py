"""Every scorer keeps the same promises; the chain of them keeps its own."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reference_world import NOW_US, write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.compose import scorers
from bentos.recommender.funnel import Funnel
from bentos.recommender.models import Models
from bentos.recommender.onnx_session import open_session
from bentos.recommender.rankers.base import Scorer
from bentos.recommender.rankers.dcn import FoldedRanker
from bentos.recommender.rankers.logistic import LogisticRanker
from bentos.recommender.rankers.onnx_graph import OnnxRanker
from bentos.recommender.rankers.rows import RowRanker
from bentos.recommender.ranking import rank
from bentos.recommender.types import Candidates, Query
from features.online.base import UserState
from registry.artifacts import Kind

NAMES = ("dcn", "logistic", "retrieval")
PLAIN = "dcn, layer by layer"  # what a GPU runs, and a bundle without the fast graph


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Kind, Path]:
    return write_world(tmp_path_factory.mktemp("world"), users=20, items=200)


@pytest.fixture(scope="module")
def models(folders: Mapping[Kind, Path]) -> Models:
    return load_models(folders)


@pytest.fixture(scope="module")
def plain(folders: Mapping[Kind, Path]) -> Scorer:
    return RowRanker("dcn", OnnxRanker(open_session(folders["ranking"] / "dcn.onnx")))


@pytest.fixture(scope="module")
def asked(models: Models) -> tuple[Candidates, NDArray[np.float32]]:
    funnel = Funnel(models, None)
    query = Query("r", "u1", 20, NOW_US, math.inf)
    user, candidates = funnel.candidates(query, UserState("u1"))
    return candidates, funnel.rows(query, user, candidates)


@pytest.fixture(params=[*NAMES, PLAIN])
def scorer(request: pytest.FixtureRequest, models: Models, plain: Scorer) -> Scorer:
    return plain if request.param == PLAIN else next(s for s in scorers(models) if s.name == request.param)


def test_the_fast_graph_that_serves_gives_the_scores_of_the_plain_one(
    models: Models, plain: Scorer, asked: tuple[Candidates, NDArray[np.float32]]
) -> None:
    candidates, rows = asked
    assert isinstance(models.ranker, FoldedRanker)
    assert np.abs(models.ranker.score(rows) - plain.score(candidates, lambda: rows)).max() < 1e-5


def test_every_scorer_is_in_the_chain_best_first(models: Models) -> None:
    assert tuple(s.name for s in scorers(models)) == NAMES


def test_it_scores_every_candidate_above_or_at_zero(
    scorer: Scorer, asked: tuple[Candidates, NDArray[np.float32]]
) -> None:
    candidates, rows = asked
    scores = scorer.score(candidates, lambda: rows)
    assert scores.shape == (len(candidates),)
    assert scores.dtype == np.float32
    assert (scores >= 0).all()
    assert len(np.unique(scores)) > 10


def test_its_score_of_an_item_does_not_depend_on_the_others(
    scorer: Scorer, asked: tuple[Candidates, NDArray[np.float32]]
) -> None:
    candidates, rows = asked
    order = np.random.default_rng(0).permutation(len(candidates))[:17]
    together = scorer.score(candidates, lambda: rows)
    apart = scorer.score(candidates.take(order), lambda: rows[order])
    assert np.allclose(apart, together[order], rtol=1e-6)


def chain(models: Models, *broken: Scorer) -> list[Scorer]:
    return [*broken, *scorers(models)[len(broken) :]]


class Says:
    """A scorer that gives what it was told to."""

    ready = True

    def __init__(self, name: str, scores: NDArray[np.float32] | Exception) -> None:
        self.name, self._scores = name, scores  # type: ignore[assignment]

    def score(self, candidates: Candidates, rows: object) -> NDArray[np.float32]:
        if isinstance(self._scores, Exception):
            raise self._scores
        return self._scores


@pytest.mark.parametrize("bad", ["nan", "inf", "short", "raises"])
def test_the_next_scorer_takes_over_and_the_notes_say_why(
    bad: str, models: Models, asked: tuple[Candidates, NDArray[np.float32]]
) -> None:
    candidates, rows = asked
    scores = np.ones(len(candidates), np.float32)
    scores[3] = {"nan": np.nan, "inf": np.inf}.get(bad, 1.0)
    said = RuntimeError("boom") if bad == "raises" else scores[:-1] if bad == "short" else scores
    first = Says("dcn", said)  # type: ignore[arg-type]
    _, by, notes = rank(chain(models, first), candidates, lambda: rows, given={}, deadline=math.inf)  # type: ignore[list-item]
    assert by == "logistic"
    assert len(notes) == 1
    assert notes[0].startswith("dcn: ")
    second = Says("logistic", RuntimeError("boom too"))
    _, by, notes = rank(chain(models, first, second), candidates, lambda: rows, given={}, deadline=math.inf)  # type: ignore[arg-type]
    assert by == "retrieval"
    assert len(notes) == 2


def test_ranked_candidates_are_in_order_of_score_and_keep_their_columns(
    models: Models, asked: tuple[Candidates, NDArray[np.float32]]
) -> None:
    candidates, rows = asked
    ranked, by, notes = rank(scorers(models), candidates, lambda: rows, given={}, deadline=math.inf)
    assert (by, notes) == ("dcn", [])
    assert (np.diff(ranked.score) <= 0).all()
    before = dict(zip(candidates.items.tolist(), candidates.retrieval.tolist(), strict=True))
    assert dict(zip(ranked.items.tolist(), ranked.retrieval.tolist(), strict=True)) == before


@pytest.mark.parametrize("values", [2, 1_000_000])
def test_ties_are_by_retrieval_score_and_then_by_row(
    values: int, models: Models, asked: tuple[Candidates, NDArray[np.float32]]
) -> None:
    candidates, rows = asked
    rng = np.random.default_rng(values)
    candidates = replace(candidates, retrieval=rng.integers(0, 3, len(candidates)).astype(np.float32))
    scores = (rng.integers(1, values, len(candidates)) / values).astype(np.float32)
    ranked, _, _ = rank(chain(models, Says("dcn", scores)), candidates, lambda: rows, given={}, deadline=math.inf)  # type: ignore[list-item]
    columns = zip(scores.tolist(), candidates.retrieval.tolist(), candidates.items.tolist(), strict=True)
    expected = sorted(columns, key=lambda c: (-c[0], -c[1], c[2]))
    assert ranked.items.tolist() == [item for _, _, item in expected]


def test_after_the_deadline_only_the_order_that_costs_nothing_is_used(
    models: Models, asked: tuple[Candidates, NDArray[np.float32]]
) -> None:
    candidates, rows = asked
    _, by, notes = rank(scorers(models), candidates, lambda: rows, given={}, deadline=0.0)
    assert by == "retrieval"
    assert notes == ["dcn: no time left", "logistic: no time left"]


def test_rows_that_cannot_be_made_leave_the_retrieval_order(
    models: Models, asked: tuple[Candidates, NDArray[np.float32]]
) -> None:
    def broken() -> NDArray[np.float32]:
        raise ValueError("a column is missing")

    _, by, notes = rank(scorers(models), asked[0], broken, given={}, deadline=math.inf)
    assert by == "retrieval"
    assert len(notes) == 2


def test_the_folded_logistic_ranker_is_the_textbook_formula() -> None:
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((50, 6)).astype(np.float32)
    mean, scale, weights = rng.standard_normal(6), np.array([1, 2, 0, 3, 0.5, 1.0]), rng.standard_normal(6)
    safe = np.where(scale == 0, 1, scale)  # a constant column, as scikit-learn's StandardScaler has it
    expected = 1 / (1 + np.exp(-(((rows - mean) / safe) @ weights + 0.3)))
    assert np.allclose(LogisticRanker(mean, scale, weights, 0.3).score(rows), expected, atol=1e-5)


def test_a_ranker_without_its_model_says_so(tmp_path: Path) -> None:
    folders = write_world(tmp_path, users=5, items=60)
    bare = load_models({"retrieval": folders["retrieval"]})
    assert [s.ready for s in scorers(bare)] == [False, False, True]
