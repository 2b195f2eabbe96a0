"""Fits the retrieval sources on the events before a moment and writes them as one retrieval bundle.

Shapes as in registry/artifacts.py: N items, U users, D = 128, C categories, A attributes, S static item features.
"""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from bentos.recommender.ann import EXACT_UP_TO
from contracts.catalogue import Catalogue
from contracts.dataset import DatasetConfig
from contracts.ids import IdIndex
from contracts.serving import HISTORY_LENGTH
from features.item_item import ItemItem
from features.two_tower_inputs import padded_inputs
from registry.artifacts import Bundle, catalogue_hash, open_bundle, seal
from training import parallel
from training.baselines.past import last_events
from training.export import export_onnx
from training.interactions import HOUR_US, Items, Log, Positives, read_items, read_log
from training.models.content import ContentConfig, fit_content
from training.models.item_item import ItemItemConfig, fit_item_item
from training.models.lightgcn import LightGCNConfig, LightGCNModel, fit_lightgcn
from training.models.trending import TrendingConfig, decayed_counts, fit_trending
from training.models.two_tower import TwoTowerConfig, TwoTowerModel, fit_two_tower
from training.nearest import build_index
from training.progress import Progress, silent

POPULARITY_WINDOWS_D = (1, 3, 7, 14, 60)  # half-lives of the static popularity columns
CHECKED_USERS = 256


class RetrievalConfig(BaseModel):
    """How each source is fitted. The defaults suit logs of 10^4 to 10^7 events: steps follow the number of events."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    two_tower: TwoTowerConfig = TwoTowerConfig()
    graph: LightGCNConfig = LightGCNConfig()
    content: ContentConfig = ContentConfig()
    trending: TrendingConfig = TrendingConfig()
    item_item: ItemItemConfig = ItemItemConfig()


def fit_retrieval(
    snapshot_folder: Path,
    config: DatasetConfig,
    until_us: int,
    seed: int,
    out: Path,
    progress: Progress = silent,
    *,
    retrieval: RetrievalConfig | None = None,
    item_features: Mapping[str, NDArray[np.float32]] | None = None,
    feature_hash: str = "",
    signature: str = "",
    log_end_us: int | None = None,
) -> Bundle:
    """Fit on events with timestamp < `until_us` and write `out`, a folder that must not exist yet.

    item_features: registry item features as of `until_us`, each float32 over the rows of items.parquet (as
    `features.offline.item_features_as_of` gives them); popularity columns are added here. log_end_us: the clock of a
    `log_end` data set when it serves; `until_us` when not given. The same seed and data give the same arrays.

    Raises:
        DataError: the data set cannot be read, or holds nothing before `until_us`.
        ArtifactError: an export does not agree with its model.
    """
    retrieval = retrieval or RetrievalConfig()
    started = time.perf_counter()
    progress("read", 0, 1)
    items = read_items(snapshot_folder, until_us)
    log = read_log(snapshot_folder, config, items, until_us)
    positives = log.positives()
    catalogue = items.catalogue
    progress("read", 1, 1)

    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _write_catalogue(part, items, log)
    np.save(part / "trending.npy", fit_trending(positives, len(catalogue), retrieval.trending))
    content = fit_content(
        positives, catalogue.category, len(catalogue.categories), catalogue.published_us, retrieval.content
    )
    np.save(part / "content_users.npy", content.users)
    np.save(part / "content_prior.npy", content.prior)
    np.save(part / "content_items.npy", content.items)
    shown = {"progress": progress}
    graph = parallel.together(fit_lightgcn, positives, catalogue.published_us, retrieval.graph, seed, shown=shown)
    figures = _write_graph(part, graph, seed)
    towers = parallel.together(fit_two_tower, log, catalogue, items.titles, retrieval.two_tower, seed, shown=shown)
    progress("export", 0, 1)
    figures |= _write_two_tower(part, towers, log, seed)
    _write_seen(part, positives, len(catalogue))
    _write_item_item(part, fit_item_item(positives, len(catalogue), retrieval.item_item))
    names = _write_item_features(part, items, log, item_features or {})
    np.save(part / "creator_exposure.npy", _creator_exposure(log, catalogue))

    figures |= {
        "graph_steps": graph.steps,
        "graph_loss": graph.loss,
        "two_tower_steps": towers.steps,
        "two_tower_loss": towers.loss,
        "temperature": towers.temperature,
        "events": len(log),
        "seconds": time.perf_counter() - started,
    }
    seal(
        part,
        kind="retrieval",
        feature_hash=feature_hash,
        catalogue_hash=catalogue_hash(catalogue.item_ids),
        signature=signature,
        n_items=len(catalogue),
        trained_until_us=until_us,
        clock=config.clock,
        log_end_us=until_us if log_end_us is None else log_end_us,
        params={
            "attributes": list(log.attribute_columns),
            "item_features": names,
            "positive_events": [positive.event for positive in config.positives],
            "meaning": config.model_dump(
                mode="json", include={"positives", "impression_event", "completion_event"}, exclude_none=True
            ),
            "seed": seed,
            "item_item_half_life_d": retrieval.item_item.half_life_d,
            "config": retrieval.model_dump(),
            "figures": figures,
        },
    )
    part.rename(out)
    progress("export", 1, 1)
    return open_bundle(out, "retrieval")


def _write_catalogue(folder: Path, items: Items, log: Log) -> None:
    c = items.catalogue
    table = pa.table(
        {
            "item_id": pa.array(c.item_ids, pa.string()),
            "category": pa.array(c.category),
            "creator": pa.array(c.creator),
            "price": pa.array(c.price),
            "published_at": pa.array(c.published_us, pa.timestamp("us", tz="UTC")),
            "is_promoted": pa.array(c.is_promoted),
            "is_flagged": pa.array(c.is_flagged),
        }
    )
    with pa.OSFile(str(folder / "items.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    vocab = {
        "category": list(c.categories),
        "creator": list(c.creators),
        "attributes": {column: log.attribute_values[column] for column in log.attribute_columns},
    }
    (folder / "vocab.json").write_text(json.dumps(vocab))
    c.index.save(folder, "item")
    IdIndex.build(log.user_ids).save(folder, "user")
    np.save(folder / "user_attributes.npy", log.attributes)


def _write_graph(folder: Path, graph: LightGCNModel, seed: int) -> dict[str, Any]:
    """The vectors, and an index over the items where there are too many for exact search."""
    np.save(folder / "graph_users.npy", graph.users)
    np.save(folder / "graph_items.npy", graph.items)
    if len(graph.items) <= EXACT_UP_TO:
        return {}
    placed = np.flatnonzero(graph.users.any(axis=1))  # to a user without a vector all items are as near
    checked = np.random.default_rng(seed).permutation(placed)[:CHECKED_USERS]
    index, report = build_index(graph.items, graph.users[checked], seed)
    faiss.write_index(index, str(folder / "graph.faiss"))
    return {"graph_index_recall@200": report.recall_at_200, "graph_index_nprobe": report.nprobe}


def _write_two_tower(folder: Path, towers: TwoTowerModel, log: Log, seed: int) -> dict[str, Any]:
    """The user tower as ONNX, the item embeddings and their index, each checked on real users' last interactions."""
    draw = np.random.default_rng(seed)
    users = np.sort(draw.choice(log.n_users, min(CHECKED_USERS, log.n_users), replace=False))
    rows, ages = last_interactions(log, users)
    attributes = np.concatenate([users[:, None] + 1, log.attributes[users]], axis=1).astype(np.int64)
    attributes[::4, 0] = 0  # users nobody knows, with and without history
    rows[::8] = -1
    samples = padded_inputs(rows, ages, attributes)
    if len(users) == 1:  # an export with a free batch size needs two rows to look at
        samples = {name: np.repeat(value, 2, axis=0) for name, value in samples.items()}
    difference = export_onnx(towers.users, samples, "embedding", folder / "two_tower.onnx")
    np.save(folder / "item_embeddings.npy", towers.items)
    index, report = build_index(towers.items, _embed(towers, samples), seed)
    faiss.write_index(index, str(folder / "items.faiss"))
    return {
        "onnx_max_difference": difference,
        "index": report.kind,
        "index_recall@200": report.recall_at_200,
        "index_nprobe": report.nprobe,
    }


def _embed(towers: TwoTowerModel, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    with torch.no_grad():
        out: NDArray[np.float32] = towers.users(**{k: torch.from_numpy(v) for k, v in inputs.items()}).numpy()
    return out


def last_interactions(log: Log, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Each user's last 10 interactions (impressions are none) as of the cut.

    int64 [B, H] item rows, newest first, -1 as padding, and float32 [B, H] ages in hours.
    """
    events = np.flatnonzero(~log.impression)
    owner = log.user[events]
    start, end = np.searchsorted(owner, users, side="left"), np.searchsorted(owner, users, side="right")
    at = end[:, None] - 1 - np.arange(HISTORY_LENGTH)
    there = at >= start[:, None]
    picked = events[np.where(there, at, 0)] if len(events) else np.zeros(at.shape, dtype=np.int64)
    rows = np.where(there, log.item[picked], -1).astype(np.int64)
    ages = np.where(there, (log.until_us - log.timestamp_us[picked]) / HOUR_US, 0.0).astype(np.float32)
    return rows, ages


def _write_seen(folder: Path, positives: Positives, n_items: int) -> None:
    pairs, last_us = last_events(positives, n_items)
    counts = np.bincount(pairs // n_items, minlength=positives.n_users)
    np.save(folder / "seen_indptr.npy", np.r_[0, np.cumsum(counts)].astype(np.int64))
    np.save(folder / "seen_items.npy", (pairs % n_items).astype(np.int32))
    np.save(folder / "seen_at_us.npy", last_us)


def _write_item_item(folder: Path, fitted: ItemItem) -> None:
    np.save(folder / "item_item_indptr.npy", fitted.indptr)
    np.save(folder / "item_item_items.npy", fitted.items)
    np.save(folder / "item_item_weights.npy", fitted.weights)


def _write_item_features(
    folder: Path, items: Items, log: Log, registry_features: Mapping[str, NDArray[np.float32]]
) -> list[str]:
    """The registry's features, and `item_pop_{d}d` (positive counts that halve every d days) where it gave none."""
    n = len(items.catalogue)
    columns = {name: np.asarray(values, dtype=np.float32)[items.kept] for name, values in registry_features.items()}
    positives = log.positives()
    for days in POPULARITY_WINDOWS_D:
        name = f"item_pop_{days}d"
        if name not in columns:
            columns[name] = decayed_counts(positives, n, days)
    np.save(folder / "item_features.npy", np.stack(list(columns.values()), axis=1).astype(np.float32))
    return list(columns)


def _creator_exposure(log: Log, catalogue: Catalogue) -> NDArray[np.float32]:
    """Share of impressions, or of interactions in a log that has none; float32 [creators]."""
    shown = log.impression if log.impression.any() else np.ones(len(log), dtype=bool)
    creator = catalogue.creator[log.item[shown]]
    counts = np.bincount(creator[creator >= 0], minlength=len(catalogue.creators)).astype(np.float32)
    return counts / max(float(counts.sum()), 1.0)
