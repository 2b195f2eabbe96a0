"""The bundle as others find it: opened with NumPy, Arrow, ONNX Runtime and FAISS alone."""

import json
from pathlib import Path

import faiss
import numpy as np
import onnxruntime
import pyarrow as pa
import pytest

from bentos.recommender.ann import NearestItems
from contracts.dataset import DatasetConfig
from contracts.errors import DataError
from contracts.ids import IdIndex
from features.two_tower_inputs import AttributeVocab, user_inputs
from registry.artifacts import Bundle, open_bundle, verify
from tests.unit.models.two_tastes import ITEMS, SMALL, START_US, UNTIL_US, USERS
from training import retrieval
from training.models.lightgcn import LightGCNModel
from training.retrieval import fit_retrieval


def load(bundle: Bundle, name: str) -> np.ndarray:
    return np.load(bundle.path(name), allow_pickle=False)


def test_bundle_is_whole_and_has_the_shapes_of_its_format(bundle: Bundle) -> None:
    opened = open_bundle(bundle.folder, "retrieval")
    assert verify(opened) == []
    n, params = opened.manifest.n_items, opened.manifest.params
    with pa.memory_map(str(opened.path("items.arrow"))) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table.column_names == [
        "item_id", "category", "creator", "price", "published_at", "is_promoted", "is_flagged",
    ]  # fmt: skip
    assert table.num_rows == n == ITEMS
    vocab = opened.json("vocab.json")
    categories = len(vocab["category"])
    shapes = {
        "item_embeddings.npy": (n, 128),
        "content_users.npy": (USERS, categories),
        "content_prior.npy": (categories,),
        "content_items.npy": (n,),
        "trending.npy": (n,),
        "item_features.npy": (n, len(params["item_features"])),
        "creator_exposure.npy": (len(vocab["creator"]),),
        "user_attributes.npy": (USERS, len(params["attributes"])),
        "seen_indptr.npy": (USERS + 1,),
    }
    assert {name: load(opened, name).shape for name in shapes} == shapes
    assert load(opened, "graph_users.npy").shape[1] == load(opened, "graph_items.npy").shape[1]
    floats = [name for name in shapes if load(opened, name).dtype.kind == "f"]
    assert all(load(opened, name).dtype == np.float32 and np.isfinite(load(opened, name)).all() for name in floats)
    assert faiss.read_index(str(opened.path("items.faiss"))).ntotal == n
    assert params["positive_events"] == ["click"]
    assert params["figures"]["onnx_max_difference"] <= 1e-4
    assert not [p for p in opened.folder.rglob("*") if p.suffix in {".pkl", ".pt", ".part"}]


@pytest.mark.parametrize("limit", [50, 5_000])
def test_graph_vectors_get_an_index_where_serving_would_not_search_them_exactly(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    users, items = (rng.standard_normal((n, 9)).astype(np.float32) for n in (40, 1_000))
    users[::3] = 0  # without an event before the cut
    monkeypatch.setattr(retrieval, "EXACT_UP_TO", limit)
    figures = retrieval._write_graph(tmp_path, LightGCNModel(users, items, steps=1, loss=0.5), seed=0)
    assert (tmp_path / "graph.faiss").exists() == bool(figures) == (limit < 1_000)
    if figures:
        assert figures["graph_index_recall@200"] >= 0.99
        index = faiss.read_index(str(tmp_path / "graph.faiss"))
        NearestItems(np.load(tmp_path / "graph_items.npy"), index, exact_up_to=limit)  # fits the vectors


def test_an_item_published_after_the_cut_is_not_in_the_catalogue_and_an_unwanted_one_is(bundle: Bundle) -> None:
    index = IdIndex.open(bundle.folder, "item")
    assert index.lookup("i30") == -1
    assert index.lookup("i29") >= 0


def test_seen_holds_each_wanted_item_once_and_no_mere_impression(bundle: Bundle, world: Path) -> None:
    import duckdb

    until = UNTIL_US
    wanted = duckdb.sql(
        f"SELECT DISTINCT user_id, item_id FROM read_parquet('{world / 'interactions.parquet'}')"  # noqa: S608
        f" WHERE event = 'click' AND epoch_us(timestamp) < {until}"
    ).fetchall()
    indptr, items = load(bundle, "seen_indptr.npy"), load(bundle, "seen_items.npy")
    users, rows = IdIndex.open(bundle.folder, "user"), IdIndex.open(bundle.folder, "item")
    assert len(items) == len(wanted)
    for user, item in wanted[:200]:
        u = users.lookup(user)
        assert rows.lookup(item) in items[indptr[u] : indptr[u + 1]]


def test_item_item_weights_and_moments_of_the_history_come_together(bundle: Bundle) -> None:
    indptr, items = load(bundle, "item_item_indptr.npy"), load(bundle, "item_item_items.npy")
    assert indptr.shape == (bundle.manifest.n_items + 1,)
    assert indptr[-1] == len(items) == len(load(bundle, "item_item_weights.npy"))
    at_us = load(bundle, "seen_at_us.npy")
    assert len(at_us) == len(load(bundle, "seen_items.npy"))
    assert 0 < at_us.min() <= at_us.max() < UNTIL_US


def test_user_tower_in_onnx_gives_unit_vectors_that_prefer_the_users_taste(bundle: Bundle) -> None:
    session = onnxruntime.InferenceSession(str(bundle.path("two_tower.onnx")), providers=["CPUExecutionProvider"])
    params, vocab = bundle.manifest.params, bundle.json("vocab.json")
    attributes = AttributeVocab(params["attributes"], vocab["attributes"], load(bundle, "user_attributes.npy"))
    users = IdIndex.open(bundle.folder, "user")
    tastes = []
    items = load(bundle, "item_embeddings.npy")
    for taste in (0, 1):
        history = np.array([taste, taste + 2, taste + 4], dtype=np.int32)
        ages = np.array([1.0, 2.0, 30.0], dtype=np.float32)
        known = attributes.row(users.lookup(f"u{taste:02d}"), {"device": "ios"})
        inputs = user_inputs(
            [history, np.empty(0, np.int32)], [ages, np.empty(0, np.float32)], np.stack([known, known * 0])
        )
        (out,) = session.run(["embedding"], inputs)
        assert out.shape == (2, 128)
        assert np.allclose(np.linalg.norm(out, axis=1), 1, atol=1e-5)
        scores = items @ out[0]
        tastes.append(scores[taste:28:2].mean() - scores[1 - taste : 28 : 2].mean())
    assert min(tastes) > 0
    assert np.allclose(np.linalg.norm(items, axis=1), 1, atol=1e-5)


def test_the_same_seed_and_data_give_the_same_arrays(bundle: Bundle, world: Path, tmp_path: Path) -> None:
    again = fit_retrieval(world, DatasetConfig.read(world), UNTIL_US, 3, tmp_path / "again", retrieval=SMALL)
    for name in ("item_embeddings.npy", "graph_users.npy", "graph_items.npy", "content_users.npy", "trending.npy"):
        assert np.array_equal(load(bundle, name), load(again, name)), name
    assert again.manifest.files["two_tower.onnx"] == bundle.manifest.files["two_tower.onnx"]


def test_registry_features_are_cut_to_the_catalogue_and_come_before_popularity(world: Path, tmp_path: Path) -> None:
    given = {"item_ctr_7d": np.arange(ITEMS + 1, dtype=np.float32), "item_pop_7d": np.ones(ITEMS + 1, np.float32)}
    out = fit_retrieval(
        world, DatasetConfig.read(world), UNTIL_US, 3, tmp_path / "b", retrieval=SMALL, item_features=given
    )
    names = out.manifest.params["item_features"]
    assert names[:2] == ["item_ctr_7d", "item_pop_7d"]
    assert len(set(names)) == len(names)
    assert np.array_equal(load(out, "item_features.npy")[:, 0], np.arange(ITEMS, dtype=np.float32))


def test_a_cut_before_the_data_is_an_error_and_leaves_nothing(world: Path, tmp_path: Path) -> None:
    for until in (START_US - 1, START_US):
        with pytest.raises(DataError):
            fit_retrieval(world, DatasetConfig.read(world), until, 3, tmp_path / "none", retrieval=SMALL)
    assert not list(tmp_path.iterdir())


def test_manifest_params_are_plain_json(bundle: Bundle) -> None:
    json.dumps(bundle.manifest.params, allow_nan=False)
