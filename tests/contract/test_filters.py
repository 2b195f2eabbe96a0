"""Every filter drops exactly what it is for, and fails closed."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.reference_world import NOW_US, write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.compose import filters
from bentos.recommender.filtering import keep_allowed
from bentos.recommender.filters.base import Filter
from bentos.recommender.hydrate import NO_AGES, NO_ITEMS
from bentos.recommender.models import Models
from bentos.recommender.rules import default_rules
from bentos.recommender.types import Candidates, Query, User
from contracts.serving import SOURCES
from features.online.base import UserState

N = 200
NAMES = ("flagged", "unpublished", "excluded", "seen")
EXCLUDED, SEEN = np.arange(10, 30, dtype=np.int32), np.arange(25, 60, dtype=np.int32)
QUERY = Query("r", "u1", 20, NOW_US, math.inf, exclude=EXCLUDED)
USER = User(-1, UserState("u1"), NO_ITEMS, NO_AGES, SEEN)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(write_world(tmp_path_factory.mktemp("world"), users=5, items=N))


@pytest.fixture(params=NAMES)
def stage(request: pytest.FixtureRequest, models: Models) -> Filter:
    return next(f for f in filters(models, default_rules()) if f.name == request.param)


def candidates(items: Any) -> Candidates:
    rows = np.asarray(items, np.int32)
    scores = np.linspace(1, 0, len(rows), dtype=np.float32)
    by_source = np.zeros((len(rows), len(SOURCES)), np.float32)
    return Candidates(rows, scores, by_source, by_source > 0, scores)


def forbidden(name: str, models: Models) -> set[int]:
    rows = {
        "flagged": np.flatnonzero(models.catalogue.is_flagged),
        "unpublished": np.flatnonzero(models.catalogue.published_us > NOW_US),
        "excluded": EXCLUDED,
        "seen": SEEN,
    }
    return set(rows[name].tolist())


def test_every_filter_is_registered(models: Models) -> None:
    assert tuple(f.name for f in filters(models, default_rules())) == NAMES


def test_it_drops_what_it_is_for_and_nothing_else(stage: Filter, models: Models) -> None:
    everything = candidates(np.random.default_rng(0).permutation(N))
    mask = stage.keep(QUERY, USER, everything)
    assert mask.dtype == np.bool_
    assert forbidden(stage.name, models)
    assert set(everything.items[~mask].tolist()) == forbidden(stage.name, models)


def test_no_candidates_are_no_error(stage: Filter) -> None:
    assert stage.keep(QUERY, USER, candidates([])).tolist() == []


def test_without_reasons_nothing_is_dropped(models: Models) -> None:
    quiet = Query("r", "u1", 20, NOW_US, math.inf)
    new = replace(USER, seen=NO_ITEMS)
    allowed = np.flatnonzero(~models.catalogue.is_flagged & (models.catalogue.published_us <= NOW_US))
    kept, dropped, notes = keep_allowed(filters(models, default_rules()), quiet, new, candidates(allowed))
    assert len(kept) == len(allowed)
    assert sum(dropped.values()) == 0
    assert notes == []


@pytest.mark.parametrize("what", ["raises", "short", "not bool"])
def test_one_that_fails_lets_nothing_through(what: str, stage: Filter, models: Models) -> None:
    class Broken:
        name = stage.name

        def keep(self, query: Query, user: User, rows: Candidates) -> Any:
            if what == "raises":
                raise RuntimeError("no list")
            return np.ones(len(rows) - 1, np.bool_) if what == "short" else np.ones(len(rows), np.int64)

    chain = [Broken() if f.name == stage.name else f for f in filters(models, default_rules())]
    kept, dropped, notes = keep_allowed(chain, QUERY, USER, candidates(range(N)))
    assert len(kept) == 0
    assert sum(dropped.values()) == N
    assert notes[0].startswith(f"filter {stage.name} failed closed")


def test_the_rules_document_may_allow_what_was_seen(models: Models, tmp_path: Path) -> None:
    lenient = default_rules().model_copy(update={"suppress_seen": False})
    kept, _, _ = keep_allowed(filters(models, lenient), QUERY, USER, candidates(SEEN))
    assert len(kept) > 0
