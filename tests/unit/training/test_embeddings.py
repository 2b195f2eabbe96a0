"""Embeddings as features: the vectors that the funnel itself uses, through the store and back."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.reference_world import write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.types import Query
from contracts.errors import ArtifactError
from features.materialize import materialize
from features.offline.states import user_states_as_of
from features.online.memory import MemoryStore
from training import embeddings

END = datetime(2025, 3, 1, tzinfo=UTC)
END_US = int(END.timestamp() * 1e6)


@pytest.fixture(scope="module")
def retrieval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), users=20, items=60, seed=3)["retrieval"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    times = [END - timedelta(hours=h) for h in range(1, 9)]
    pq.write_table(
        pa.table(
            {
                "user_id": [f"u{i % 3}" for i in range(8)],
                "item_id": [f"i{i}" for i in range(8)],
                "timestamp": pa.array(times, pa.timestamp("us", "UTC")),
                "event": ["purchase"] * 8,
            }
        ),
        folder / "interactions.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "item_id": [*(f"i{i}" for i in range(8)), "new"],
                "category": ["a"] * 9,
                "published_at": pa.array([END - timedelta(days=9)] * 9, pa.timestamp("us", "UTC")),
            }
        ),
        folder / "items.parquet",
    )
    (folder / "dataset.toml").write_text('name = "t"\nclock = "log_end"\n[[positives]]\nevent = "purchase"\n')
    return folder


def test_a_user_s_embedding_is_the_vector_the_two_tower_source_asks_with(retrieval: Path, data: Path) -> None:
    models = load_models({"retrieval": retrieval, "ranking": None, "fallback": None})
    found = embeddings.of_users(models, data, END_US)
    assert set(found) == {"u0", "u1", "u2"}
    state = user_states_as_of(data, ["u1"], END_US)["u1"]
    _, candidates = Funnel(models, None).candidates(Query("", "u1", 10, END_US, math.inf), state)
    assert candidates.vector is not None
    np.testing.assert_allclose(found["u1"], candidates.vector, atol=1e-6)


def test_materialised_embeddings_come_back_from_the_store(retrieval: Path, data: Path) -> None:
    users, items = embeddings.as_features(retrieval, data, END_US)
    store = MemoryStore()
    materialize(data, store, END_US, user_embeddings=users, item_embeddings=items)
    snapshot = store.read_item_snapshot()
    assert snapshot is not None
    kept = dict(zip(snapshot.item_ids, snapshot.columns["item_embedding_128d"], strict=True))
    assert np.linalg.norm(kept["i3"]) == pytest.approx(1.0, abs=1e-5)
    assert np.isnan(kept["new"]).all(), "an item that the model does not know has no embedding"


def test_without_a_two_tower_there_is_a_reason(tmp_path: Path, data: Path) -> None:
    models = load_models({"retrieval": tmp_path, "ranking": None, "fallback": None})
    with pytest.raises(ArtifactError, match="manifest"):
        embeddings.of_users(models, data, END_US)
