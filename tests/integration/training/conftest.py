"""A data set that trains in seconds, and a training made of as few steps as there can be."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported

from pathlib import Path

import pytest

from contracts.settings import Settings
from training.data import synth
from training.models.dcn_v2 import DcnConfig
from training.models.lightgcn import LightGCNConfig
from training.models.two_tower import TwoTowerConfig
from training.pipeline import TrainConfig, TrainResult, train
from training.ranking import RankingConfig
from training.retrieval import RetrievalConfig


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "data"
    synth.write(out, users=120, items=80, days=20, seed=3)
    return out


@pytest.fixture(scope="session")
def quick() -> TrainConfig:
    return TrainConfig(
        retrieval=RetrievalConfig(
            two_tower=TwoTowerConfig(min_steps=5, max_steps=5, batch=64, hidden=16),
            graph=LightGCNConfig(min_steps=5, max_steps=5, batch=64, dimensions=8),
        ),
        ranking=RankingConfig(ranker="dcn", moments=2, window_share=0.1),
        dcn=DcnConfig(cross_layers=1, hidden=(16,), epochs=3, min_steps=3),
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture(scope="session")
def whole(quick: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, Settings]:
    """A training of everything there is, with a test window before the end; its data lies beside its home."""
    root = tmp_path_factory.mktemp("whole")
    synth.write(root / "data", users=120, items=80, days=20, seed=3)
    settings = Settings(home=root / "home")
    return train(root / "data", until_us=None, seed=1, settings=settings, config=quick), settings
