"""Three valid bundles of any size without training: random vectors, real file formats. For tests and for load.

Shapes: N items, U users, D = 128, G graph dimensions, C categories.
"""

import json
from pathlib import Path

import faiss
import msgspec
import numpy as np
import onnx
import pyarrow as pa
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.reference_names import NOW_US, item_id, user_id
from benchmarks.reference_ranker import SMALL, RankerShape, reference_dcn, sample_rows
from bentos.recommender.ann import EXACT_UP_TO
from contracts.catalogue import Catalogue, Flags
from contracts.ids import IdIndex
from contracts.serving import EMBEDDING_DIM, HISTORY_LENGTH
from features.ranking import row_schema
from features.registry import REGISTRY
from registry.artifacts import Kind, catalogue_hash, seal
from training.models.dcn_fast import write_fast
from training.models.dcn_graph import plain_graph
from training.nearest import build_index

DAY_US = 86_400_000_000
COUNTRIES = ("DE", "FR", "GB")
DEVICES = ("ios", "android", "web")
CHECKED_USERS = 128  # by which the recall of an index is measured


def write_world(
    folder: Path,
    *,
    users: int = 50,
    items: int = 400,
    categories: int = 12,
    creators: int = 40,
    graph_dim: int = 32,
    seen_per_user: int = 8,
    ranker: RankerShape = SMALL,
    item_item: bool = False,
    seed: int = 7,
) -> dict[Kind, Path]:
    """Write `folder`/retrieval, /ranking and /fallback; returns them by kind.

    About 2 % of the items are flagged, 5 % promoted, 2 % published in the last 24 h and 1 % not yet published at
    `NOW_US`, the fixed clock of the bundles. ranker: the size of its layers; `reference_ranker.REFERENCE` is the one
    of the reference workload, which has four sources. item_item: a fifth, with weights between all items.
    """
    rng = np.random.default_rng(seed)
    catalogue = _catalogue(rng, items, categories, creators)
    fields = {
        "feature_hash": REGISTRY.hash,
        "catalogue_hash": catalogue_hash(catalogue.item_ids),
        "signature": row_schema(catalogue).signature,
        "n_items": items,
        "trained_until_us": NOW_US,
        "clock": "log_end",
        "log_end_us": NOW_US,
    }
    folders: dict[Kind, Path] = {kind: folder / kind for kind in ("retrieval", "ranking", "fallback")}
    for path in folders.values():
        path.mkdir(parents=True)
    params = _retrieval(rng, folders["retrieval"], catalogue, users, graph_dim, seen_per_user, seed)
    if item_item:
        params |= _item_item(folders["retrieval"], items, users * min(seen_per_user, items), seed)
    seal(folders["retrieval"], kind="retrieval", params=params, **fields)
    params = _ranking(folders["ranking"], folders["retrieval"], catalogue, ranker, seed)
    seal(folders["ranking"], kind="ranking", params=params, **fields)
    _fallback(rng, folders["fallback"], catalogue)
    seal(folders["fallback"], kind="fallback", **fields)
    return folders


def _catalogue(rng: np.random.Generator, n: int, categories: int, creators: int) -> Catalogue:
    age_us = (rng.exponential(90, n) * DAY_US).astype(np.int64) + 2 * DAY_US
    fresh = rng.permutation(n)[: max(3, n // 50)]
    age_us[fresh] = rng.integers(0, DAY_US // 2, len(fresh))
    future = rng.permutation(n)[: max(2, n // 100)]
    age_us[future] = -DAY_US
    ids = [item_id(i) for i in range(n)]
    return Catalogue(
        item_ids=ids,
        index=IdIndex.build(ids),
        category=rng.integers(0, categories, n).astype(np.int32),
        categories=[f"category {c}" for c in range(categories)],
        creator=rng.integers(-1, creators, n).astype(np.int32),
        creators=[f"creator {c}" for c in range(creators)],
        price=rng.lognormal(2, 1, n).astype(np.float32),
        published_us=NOW_US - age_us,
        is_promoted=rng.random(n) < 0.05,
        flags=Flags(rng.random(n) < 0.02),
    )


def _retrieval(
    rng: np.random.Generator,
    folder: Path,
    catalogue: Catalogue,
    users: int,
    graph_dim: int,
    seen_per_user: int,
    seed: int,
) -> dict[str, object]:
    n, categories = len(catalogue), len(catalogue.categories)
    table = pa.table(
        {
            "item_id": pa.array(catalogue.item_ids),
            "category": catalogue.category,
            "creator": catalogue.creator,
            "price": catalogue.price,
            "published_at": pa.array(catalogue.published_us, pa.timestamp("us", "UTC")),
            "is_promoted": catalogue.is_promoted,
            "is_flagged": catalogue.is_flagged,
        }
    )
    with pa.OSFile(str(folder / "items.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    attributes = {"country": ["", *COUNTRIES], "device": ["", *DEVICES]}
    vocab = {"category": catalogue.categories, "creator": catalogue.creators, "attributes": attributes}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    catalogue.index.save(folder, "item")
    IdIndex.build([user_id(u) for u in range(users)]).save(folder, "user")

    # Items of a category lie near one another and users near a few categories: an index has something to find.
    centres = _unit(rng.standard_normal((categories, EMBEDDING_DIM)))
    embeddings = items_near(rng, centres, catalogue.category)
    np.save(folder / "item_embeddings.npy", embeddings)
    tastes = tastes_near(rng, centres, users)
    onnx.save(_two_tower(rng, embeddings, tastes, attributes), str(folder / "two_tower.onnx"))
    checked = rng.permutation(users)[:CHECKED_USERS]
    sessions = embeddings[rng.integers(0, n, (len(checked), HISTORY_LENGTH))].mean(axis=1)
    index, _ = build_index(embeddings, _unit(tastes[checked] + sessions), seed)
    faiss.write_index(index, str(folder / "items.faiss"))
    graph_centres = _unit(rng.standard_normal((categories, graph_dim)))
    graph_items, graph_users = (
        items_near(rng, graph_centres, catalogue.category),
        tastes_near(rng, graph_centres, users),
    )
    np.save(folder / "graph_items.npy", graph_items)
    np.save(folder / "graph_users.npy", graph_users)
    if n > EXACT_UP_TO:
        index, _ = build_index(graph_items, graph_users[checked], seed)
        faiss.write_index(index, str(folder / "graph.faiss"))
    np.save(folder / "content_users.npy", rng.dirichlet(np.ones(categories), users).astype(np.float32))
    np.save(folder / "content_prior.npy", np.full(categories, 1 / categories, np.float32))
    np.save(folder / "content_items.npy", rng.random(n, dtype=np.float32))

    popular = rng.zipf(1.3, 5 * n + 10_000) % n
    counts = np.bincount(popular, minlength=n).astype(np.float32)
    columns = {
        d.name: np.full(n, d.default, np.float32) if d.name.endswith(("_ctr_7d", "_rate_7d")) else counts
        for d in REGISTRY.of("item")
        if d.dtype == "float" and d.kind != "on_demand"
    }
    np.save(folder / "trending.npy", counts)
    np.save(folder / "item_features.npy", np.column_stack(list(columns.values())))
    per_creator = np.bincount(catalogue.creator[catalogue.creator >= 0], minlength=len(catalogue.creators))
    np.save(folder / "creator_exposure.npy", (per_creator / per_creator.sum()).astype(np.float32))

    seen = np.sort(rng.integers(0, n, (users, min(seen_per_user, n))), axis=1).astype(np.int32)
    np.save(folder / "seen_indptr.npy", np.arange(users + 1, dtype=np.int64) * seen.shape[1])
    np.save(folder / "seen_items.npy", seen.reshape(-1))
    return {
        "attributes": list(attributes),
        "item_features": list(columns),
        "positive_events": ["click", "purchase"],
    }


def _item_item(folder: Path, n: int, n_seen: int, seed: int) -> dict[str, object]:
    """Every item speaks for every other one, and everything was met within half a year."""
    rng = np.random.default_rng(seed)
    near = np.arange(n)[None, :] != np.arange(n)[:, None]
    np.save(folder / "item_item_indptr.npy", np.arange(n + 1, dtype=np.int64) * (n - 1))
    np.save(folder / "item_item_items.npy", np.nonzero(near)[1].astype(np.int32))
    np.save(folder / "item_item_weights.npy", rng.gamma(0.2, 1.0, n * (n - 1)).astype(np.float32) + np.float32(1e-3))
    np.save(folder / "seen_at_us.npy", NOW_US - rng.integers(0, 180 * DAY_US, n_seen))
    return {"item_item_half_life_d": 60.0}


def items_near(
    rng: np.random.Generator, centres: NDArray[np.float32], category: NDArray[np.int32]
) -> NDArray[np.float32]:
    """float32 [N, D], unit length: items around the centres of their categories."""
    return _unit(0.7 * centres[category] + 0.7 * _unit(rng.standard_normal((len(category), centres.shape[1]))))


def tastes_near(rng: np.random.Generator, centres: NDArray[np.float32], users: int) -> NDArray[np.float32]:
    """float32 [users, D], near unit length: what users are near to, one category more than another."""
    first, second = rng.integers(0, len(centres), (2, users))
    weight = rng.uniform(0.6, 0.9, (users, 1)).astype(np.float32)
    noise = _unit(rng.standard_normal((users, centres.shape[1])))
    return weight * centres[first] + (1 - weight) * centres[second] + 0.3 * noise


def _two_tower(
    rng: np.random.Generator,
    embeddings: NDArray[np.float32],
    tastes: NDArray[np.float32],
    attributes: dict[str, list[str]],
) -> onnx.ModelProto:
    """The user's taste + the mean of the history's vectors (pads are zero) + a little by attribute, unit length."""
    sizes = [len(tastes) + 1, *(len(values) for values in attributes.values())]
    said = 0.02 * rng.standard_normal((sum(sizes[1:]), EMBEDDING_DIM))
    tables = {
        "items": np.concatenate([np.zeros((1, EMBEDDING_DIM), np.float32), embeddings]),
        "who": np.concatenate([np.zeros((1, EMBEDDING_DIM)), tastes, said]).astype(np.float32),  # row 0: unknown
        "starts": np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
        "axes": np.array([1], np.int64),
        "zero_hours": np.array(0.0, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["items", "history"], ["steps"]),
        helper.make_node("ReduceMean", ["steps", "axes"], ["session"], keepdims=0),
        helper.make_node("Add", ["attributes", "starts"], ["rows"]),
        helper.make_node("Gather", ["who", "rows"], ["parts"]),
        helper.make_node("ReduceSum", ["parts", "axes"], ["person"], keepdims=0),
        helper.make_node("Mul", ["history_age_h", "zero_hours"], ["ages"]),
        helper.make_node("ReduceSum", ["ages", "axes"], ["nothing"], keepdims=1),
        helper.make_node("Add", ["session", "person"], ["sum"]),
        helper.make_node("Add", ["sum", "nothing"], ["raw"]),
        helper.make_node("LpNormalization", ["raw"], ["embedding"], axis=-1, p=2),
    ]
    inputs = [
        helper.make_tensor_value_info("history", TensorProto.INT64, ["B", HISTORY_LENGTH]),
        helper.make_tensor_value_info("history_age_h", TensorProto.FLOAT, ["B", HISTORY_LENGTH]),
        helper.make_tensor_value_info("attributes", TensorProto.INT64, ["B", len(sizes)]),
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["B", EMBEDDING_DIM])]
    return _model("two_tower", nodes, inputs, outputs, tables)


def _ranking(folder: Path, retrieval: Path, catalogue: Catalogue, shape: RankerShape, seed: int) -> dict[str, object]:
    """A DCN-V2 with seeded weights: the shape of a ranker's work, not its wisdom."""
    schema = row_schema(catalogue)
    (folder / "schema.json").write_bytes(msgspec.json.encode(schema))
    rows = sample_rows(retrieval, shape.users, seed)
    weights = reference_dcn(shape, schema, rows, seed)
    onnx.save(plain_graph(weights), str(folder / "dcn.onnx"))
    choice = write_fast(folder, weights, rows)
    return {} if choice is None else {"fast": choice.params}


def _fallback(rng: np.random.Generator, folder: Path, catalogue: Catalogue) -> None:
    n, schema = len(catalogue), row_schema(catalogue)
    (folder / "schema.json").write_bytes(msgspec.json.encode(schema))
    width = len(schema.columns)
    weights = np.array([c.name.startswith(("source_", "retrieval", "two_tower_cosine")) for c in schema.columns], float)
    np.savez(folder / "logistic.npz", mean=np.zeros(width), scale=np.ones(width), weights=weights, bias=np.float64(-1))
    order = rng.permutation(n).astype(np.int32)
    np.save(folder / "popularity.npy", order)
    by_country = {country: rng.permutation(n)[:200].tolist() for country in COUNTRIES}
    (folder / "popularity_by_country.json").write_text(json.dumps(by_country))
    shown = order[~catalogue.is_flagged[order] & (catalogue.published_us[order] <= NOW_US)][:50]
    slate = {"item_ids": [item_id(int(i)) for i in shown], "scores": [1 / (1 + r) for r in range(len(shown))]}
    (folder / "slate.json").write_text(json.dumps(slate))


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    tables: dict[str, NDArray[np.generic]],
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(table, key) for key, table in tables.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
