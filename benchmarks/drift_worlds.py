"""Two logs as frames to draw windows from, and the drifts planted in a window: one column changes, no other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.data.world import World

REFERENCE, WINDOW = 20_000, 3_000
NULLS = 0.01  # of prices that are missing before anything is planted
DIMENSIONS = 32

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Columns of all rows; vectors by item. country, category: what is planted on. world: where labels come from."""

    name: str
    columns: Mapping[str, NDArray[Any]]
    item: Rows
    user: Rows
    vectors: NDArray[np.float32]
    country: str
    category: str
    world: World | None = None

    def __len__(self) -> int:
        return len(self.item)

    def window(self, rows: Rows) -> dict[str, NDArray[Any]]:
        found = {name: column[rows] for name, column in self.columns.items()}
        return {
            **found,
            "item_id": self.item[rows],
            "user_id": self.user[rows],
            "embedding": self.vectors[self.item[rows]],
        }


def table(columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    arrays = {}
    for name, column in columns.items():
        if column.ndim == 2:
            arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), column.shape[1])
        else:
            arrays[name] = pa.array(column, from_pandas=False)
    return pa.table(arrays)


def retail(folder: Path, seed: int) -> Pool:
    """Online Retail II, a row a purchase. Vectors: truncated SVD of who bought what."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import svds

    log, items, users = (pq.read_table(folder / f"{name}.parquet") for name in ("interactions", "items", "users"))
    item = _rows(items["item_id"], log["item_id"])
    user = _rows(users["user_id"], log["user_id"])
    bought = coo_matrix((np.ones(len(item)), (user, item)), (users.num_rows, items.num_rows)).tocsr()
    bought.data = np.log1p(bought.data)
    _, scale, right = svds(bought.astype(np.float32), k=DIMENSIONS, rng=np.random.default_rng(seed))
    price = np.log(items["price"].to_numpy())[item]
    at = log["timestamp"].cast(pa.int64()).to_numpy()
    quantity = log["value"].to_numpy()
    columns = {
        "country": np.asarray(users["country"].to_pylist())[user],
        "category": np.asarray(items["category"].to_pylist())[item],
        "price": _with_nulls(np.exp(price), seed),
        "spent": np.log(np.maximum(quantity, 0.01)),
        "hour": (at // 3_600_000_000) % 24 * 1.0,
    }
    return Pool("Online Retail II", columns, item, user, (right.T * scale).astype(np.float32), "Germany", "cake")


def synthetic(folder: Path, seed: int) -> Pool:
    """Impressions of a synthetic world. score: what a ranker says that knows the world; labels are drawn by it."""
    log, items = pq.read_table(folder / "interactions.parquet"), pq.read_table(folder / "items.parquet")
    world = World.load(folder / "truth") if (folder / "truth").exists() else World.load(folder)
    log = log.filter(pa.compute.equal(log["event"], "impression"))
    item = _rows(items["item_id"], log["item_id"])
    of_world = _rows(pa.chunked_array([pa.array(world.item_ids())]), items["item_id"])[item]
    user = _rows(pa.chunked_array([pa.array(world.user_ids())]), log["user_id"])
    positions = log["position"].to_numpy()
    score = world.affinity(user, of_world) * world.examination(positions)
    columns = {
        "country": np.asarray(("DE", "FR", "GB", "NL", "US"))[world.user_country[user]],
        "age_band": np.asarray(("18-24", "25-34", "35-49", "50+"))[world.user_age[user]],
        "device": np.asarray(log["device"].to_pylist()),
        "category": np.asarray(items["category"].to_pylist())[item],
        "price": _with_nulls(world.item_price[of_world].astype(np.float64), seed),
        "position": positions.astype(np.int64),
        "score": score.astype(np.float64),
        "label": (np.random.default_rng(seed).random(len(score)) < score).astype(np.float64),
        "world_item": of_world,
    }
    names, counts = np.unique(columns["category"], return_counts=True)
    usual = str(names[np.argmin(np.abs(counts / len(item) - 0.03))])
    basis = np.random.default_rng(seed).normal(size=(world.item_latent.shape[1], DIMENSIONS))
    noise = np.random.default_rng(seed + 1).normal(0, 0.1, (items.num_rows, DIMENSIONS))
    to_world = _rows(pa.chunked_array([pa.array(world.item_ids())]), items["item_id"])
    vectors = (world.item_latent[to_world] @ basis + noise).astype(np.float32)
    return Pool("synthetic world", columns, item, user, vectors, "NL", usual, world)


def _rows(ids: pa.ChunkedArray, wanted: pa.ChunkedArray) -> Rows:
    at = {name: row for row, name in enumerate(ids.to_pylist())}
    return np.array([at[name] for name in wanted.to_pylist()], np.int64)


def _with_nulls(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    return np.where(np.random.default_rng([seed, 9]).random(len(values)) < NULLS, np.nan, values)


def country_doubled(pool: Pool, window: dict[str, NDArray[Any]], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Rows of other countries become rows of this one until its share has doubled."""
    there = window["country"] == pool.country
    others = np.flatnonzero(~there)
    chosen = rng.choice(
        others, min(int((pool.columns["country"] == pool.country).mean() * len(there)), len(others)), False
    )
    country = window["country"].copy()
    country[chosen] = pool.country
    return {"country": country}


def price_up(pool: Pool, window: dict[str, NDArray[Any]], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    return {"price": window["price"] * 1.15}


def category_gone(pool: Pool, window: dict[str, NDArray[Any]], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Its rows become rows of the others, by their shares."""
    gone = window["category"] == pool.category
    return {"category": np.where(gone, rng.choice(window["category"][~gone], len(gone)), window["category"])}


def nulls_up(pool: Pool, window: dict[str, NDArray[Any]], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    price = window["price"].copy()
    price[rng.random(len(price)) < 0.02 / (1 - NULLS)] = np.nan
    return {"price": price}


def rotated(pool: Pool, window: dict[str, NDArray[Any]], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Each vector turned by 5°, in planes of two dimensions."""
    turn, old = np.radians(5), window["embedding"]
    new = np.empty_like(old)
    new[:, 0::2] = np.cos(turn) * old[:, 0::2] - np.sin(turn) * old[:, 1::2]
    new[:, 1::2] = np.sin(turn) * old[:, 0::2] + np.cos(turn) * old[:, 1::2]
    return {"embedding": new}


def tastes_swapped(pool: Pool, window: dict[str, NDArray[Any]], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Users of one country click by the tastes of those of another: the same rows, other labels."""
    world = pool.world
    assert world is not None
    segment = window["country"] == "FR"
    users = window["user_id"].copy()
    users[segment] = rng.choice(np.flatnonzero(world.user_country == 0), int(segment.sum()))
    p = world.affinity(users, window["world_item"]) * world.examination(window["position"])
    return {"label": (rng.random(len(p)) < p).astype(np.float64)}


Plant = Callable[[Pool, dict[str, NDArray[Any]], np.random.Generator], dict[str, NDArray[Any]]]
PLANTS: Mapping[str, Plant] = {
    "country's share × 2": country_doubled,
    "price + 15 %": price_up,
    "one category gone": category_gone,
    "null rate + 2 points": nulls_up,
    "embeddings turned by 5°": rotated,
    "tastes of one segment swapped": tastes_swapped,
}
