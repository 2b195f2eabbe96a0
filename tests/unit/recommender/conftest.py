"""One small synthetic world for all tests of the request path."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reference_world import NOW_US, write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.models import Models
from bentos.recommender.types import Query
from registry.artifacts import Kind


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Kind, Path]:
    return write_world(tmp_path_factory.mktemp("world"), users=30, items=400)


@pytest.fixture
def models(folders: Mapping[Kind, Path]) -> Models:
    loaded = load_models(folders)
    assert loaded.problems == {}
    return loaded


@pytest.fixture
def ask() -> Any:
    """A query at the world's end, without a deadline unless one is given."""

    def make(user_id: str = "u1", k: int = 20, **fields: Any) -> Query:
        return Query("r1", user_id, k, fields.pop("now_us", NOW_US), fields.pop("deadline", math.inf), **fields)

    return make
