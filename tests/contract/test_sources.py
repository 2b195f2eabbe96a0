"""Every retrieval source keeps the same promises."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.reference_world import NOW_US, write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.compose import BUILDERS, NEED_SESSION, QUOTAS, sources
from bentos.recommender.eligibility import Eligibility
from bentos.recommender.hydrate import Hydrate
from bentos.recommender.models import Models
from bentos.recommender.rules import default_rules
from bentos.recommender.types import Query, Source, User
from contracts.serving import SOURCES
from features.online.base import Interaction, UserState

N = 300


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(write_world(tmp_path_factory.mktemp("world"), users=20, items=N, item_item=True))


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, models: Models) -> Source:
    return sources(models)[request.param]


def query(user_id: str = "u1", **fields: Any) -> Query:
    return Query("r", user_id, 20, NOW_US, math.inf, **fields)


def hydrated(models: Models, asked: Query, *items: str) -> User:
    hydrate = Hydrate(models)
    last = tuple(Interaction(item, "click", NOW_US - 1_000_000) for item in items)
    return hydrate.resolve(asked, hydrate.known(asked), UserState(asked.user_id, {}, last, watermark_us=NOW_US))


def test_every_source_is_registered_with_a_quota() -> None:
    assert set(BUILDERS) == set(QUOTAS) == set(SOURCES)


def test_it_says_its_name_and_whether_it_waits_for_the_session(source: Source) -> None:
    assert source.name in SOURCES
    assert source.needs_session == (source.name in NEED_SESSION)


@pytest.mark.parametrize("quota", [1, 50, N + 10])
def test_it_brings_distinct_items_best_first_and_no_more_than_asked(source: Source, models: Models, quota: int) -> None:
    asked = query()
    result = source.retrieve(asked, hydrated(models, asked, "i3", "i7"), np.zeros(N, np.bool_), quota)
    assert len(result.items) == len(result.scores) == min(quota, N)
    assert result.items.dtype == np.int32
    assert result.scores.dtype == np.float32
    assert len(set(result.items.tolist())) == len(result.items)
    assert np.isfinite(result.scores).all()
    assert (np.diff(result.scores) <= 0).all()


def test_what_is_blocked_is_left_out_before_the_quota(source: Source, models: Models) -> None:
    exclude = np.random.default_rng(2).permutation(N)[: N - 40].astype(np.int32)
    asked = query(exclude=exclude)
    user = hydrated(models, asked, "i3")
    blocked = Eligibility(models.catalogue, default_rules()).blocked(asked, user)
    allowed = np.flatnonzero(~blocked)
    result = source.retrieve(asked, user, blocked, 10)
    assert len(result.items) == 10
    assert set(result.items.tolist()) <= set(allowed.tolist())
    everything = source.retrieve(asked, user, blocked, 1_000)
    assert sorted(everything.items.tolist()) == allowed.tolist()
    assert len(source.retrieve(asked, user, np.ones(N, np.bool_), 10).items) == 0


def test_the_deeper_list_begins_with_the_shorter_one(source: Source, models: Models) -> None:
    asked = query()
    user = hydrated(models, asked)
    few, more = (source.retrieve(asked, user, np.zeros(N, np.bool_), n) for n in (20, 60))
    assert more.items[:20].tolist() == few.items.tolist()


def test_an_unknown_user_is_no_error(source: Source, models: Models) -> None:
    asked = query("nobody", context={"country": "nowhere"})
    result = source.retrieve(asked, hydrated(models, asked), np.zeros(N, np.bool_), 10)
    assert len(result.items) == (0 if source.name in ("graph", "item_item") else 10)


def test_it_changes_nothing_that_it_was_given(source: Source, models: Models) -> None:
    asked = query()
    user = hydrated(models, asked, "i3")
    blocked = np.zeros(N, np.bool_)
    blocked[5] = True
    before = blocked.copy()
    first = source.retrieve(asked, user, blocked, 30)
    assert (blocked == before).all()
    again = source.retrieve(asked, user, blocked, 30)
    assert again.items.tolist() == first.items.tolist()
    assert again.scores.tolist() == first.scores.tolist()


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_whose_files_are_gone_is_a_named_problem(name: str, tmp_path: Path) -> None:
    files = {
        "two_tower": "two_tower.onnx",
        "graph": "graph_users.npy",
        "content": "content_prior.npy",
        "trending": "trending.npy",
        "item_item": "item_item_weights.npy",
    }
    folders = write_world(tmp_path, users=2, items=30, item_item=True)
    (folders["retrieval"] / files[name]).unlink()
    models = load_models(folders)
    assert set(sources(models)) == set(SOURCES) - {name}
    assert files[name] in models.problems[f"retrieval.{name}"]


def test_a_source_that_the_bundle_was_made_without_is_no_problem(tmp_path: Path) -> None:
    models = load_models(write_world(tmp_path, users=2, items=30))
    assert set(sources(models)) == set(SOURCES) - {"item_item"}
    assert models.problems == {}
