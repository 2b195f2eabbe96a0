"""One fit of the tiny world for all tests of this folder."""

from pathlib import Path

import pytest

from contracts.dataset import DatasetConfig
from registry.artifacts import Bundle
from tests.unit.models.two_tastes import SMALL, UNTIL_US, write_world
from training.retrieval import fit_retrieval


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "data")


@pytest.fixture(scope="session")
def bundle(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundle") / "retrieval"
    return fit_retrieval(world, DatasetConfig.read(world), UNTIL_US, 3, out, retrieval=SMALL)
