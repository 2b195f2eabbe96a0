"""One small world, its models and a live catalogue over them."""

from pathlib import Path

import pytest

from benchmarks.reference_world import write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.models import Models


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return write_world(tmp_path_factory.mktemp("world"), users=30, items=400)


@pytest.fixture
def models(folders: dict) -> Models:
    loaded = load_models(folders)
    assert loaded.problems == {}
    return loaded


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path
