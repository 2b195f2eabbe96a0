"""A service's log and a training's reference of any size, drawn from one population: for the cost of the watch and for
its tests. Real file formats, no service.

N items, U users, n requests, k items a slate, F columns of a row.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from uuid6 import UUID

from bentos.telemetry.kinds import CONTEXTS, EXPOSURES, LogKind
from bentos.telemetry.roll import day_of, log_folder
from contracts.exposures import CONTEXT_SCHEMA, EXPOSURE_SCHEMA, Versions
from features.frame import DENSE, MADE_FROM, REGISTERED, SCHEMA, WORDS, default_flag, feature_columns
from features.ranking import DEVICES, FIRST_CATEGORY, FIRST_PAIR, FIRST_USER, PAIR_COLUMNS
from features.registry import REGISTRY
from features.summaries import Tally
from registry.reference import EMBEDDINGS, IMPORTANCE, ROWS, STATISTICS
from registry.reference import SCHEMA as REFERENCE_SCHEMA

K = 20
RANKER = "v1-00000000"
BENTO = "streamrec:watched"
MINUTE_US = 60_000_000
REQUESTS_A_FILE = 3_000
COUNTRIES = ("GB", "DE", "FR", "ES")
COUNTRY_SHARES = (0.6, 0.2, 0.12, 0.08)


@dataclass(frozen=True, slots=True)
class Drift:
    """What happens to the population, from `since` (share of the window) on. price: factor; country: of `DE`'s share;
    gone: a category that is not shown any more; missing: share of users whose batch features are not known."""

    since: float = 0.0
    price: float = 1.0
    country: float = 1.0
    gone: int | None = None
    missing: float = 0.0


NO_DRIFT = Drift()


@dataclass(frozen=True, slots=True)
class World:
    """items: float32 [N, item columns]; category, creator: int [N]; users: float32 [U, user columns]."""

    items: NDArray[np.float32]
    category: NDArray[np.int64]
    creator: NDArray[np.int64]
    users: NDArray[np.float32]
    country: NDArray[np.int64]

    @classmethod
    def draw(cls, seed: int, *, items: int = 2_000, users: int = 20_000, categories: int = 30) -> "World":
        random = np.random.default_rng([seed, 1])
        dense = random.gamma(2, 1, (items, FIRST_PAIR)).astype(np.float32)
        at = {name: DENSE.index(name) for name in ("log_price", "price_known", "promoted")}
        dense[:, at["log_price"]] = random.normal(2.5, 0.8, items).clip(0)
        dense[:, at["price_known"]] = 1
        dense[:, at["promoted"]] = random.random(items) < 0.05
        people = random.gamma(2, 1, (users, FIRST_CATEGORY - FIRST_USER)).astype(np.float32)
        return cls(
            dense,
            random.integers(0, categories, items),
            random.integers(1, 40, items),
            people,
            random.choice(len(COUNTRIES), users, p=COUNTRY_SHARES),
        )


@dataclass(frozen=True, slots=True)
class Slates:
    """rows: float32 [n, k, F], best first. user, items: of the world; missing: users without batch features."""

    rows: NDArray[np.float32]
    user: NDArray[np.int64]
    items: NDArray[np.int64]
    scores: NDArray[np.float32]
    country: NDArray[np.int64]
    device: NDArray[np.int64]
    missing: NDArray[np.bool_]


def slates(world: World, user: NDArray[np.int64], random: np.random.Generator, drift: Drift, k: int = K) -> Slates:
    """What each of `user` [n] is shown."""
    n = len(user)
    wanted = np.arange(len(world.items))
    if drift.gone is not None:
        wanted = wanted[world.category != drift.gone]
    # Items that are early in the catalogue are shown more often.
    items = wanted[(len(wanted) * random.random((n, k)) ** 2).astype(np.int64)]
    rows = np.zeros((n, k, len(SCHEMA.columns)), np.float32)
    rows[..., :FIRST_PAIR] = world.items[items]
    rows[..., DENSE.index("log_price")] += np.float32(np.log(drift.price))
    rows[..., FIRST_PAIR:FIRST_USER] = random.standard_normal((n, k, FIRST_USER - FIRST_PAIR), np.float32)
    brought = [FIRST_PAIR + at for at, name in enumerate(PAIR_COLUMNS) if name.startswith("brought_")]
    rows[..., brought] = random.random((n, k, len(brought))) < 0.4
    rows[..., FIRST_USER:FIRST_CATEGORY] = world.users[user][:, None, :]
    rows[..., SCHEMA.at("category")] = world.category[items] + 1
    rows[..., SCHEMA.at("creator")] = world.creator[items]
    country, device = world.country[user], random.integers(1, len(DEVICES), n)
    rows[..., SCHEMA.at("country")] = country[:, None] + 1
    rows[..., SCHEMA.at("device")] = device[:, None]
    logit = -3 + 0.4 * rows[..., SCHEMA.at("retrieval")] + 0.3 * rows[..., SCHEMA.at("category_share")]
    logit += 0.2 * (rows[..., FIRST_USER] - 2) - 0.1 * rows[..., DENSE.index("log_price")]
    scores = (1 / (1 + np.exp(-logit))).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")
    rows, items = np.take_along_axis(rows, order[..., None], 1), np.take_along_axis(items, order, 1)
    missing = random.random(n) < drift.missing
    return Slates(rows, user, items, np.take_along_axis(scores, order, 1), country, device, missing)


def write_reference(folder: Path, world: World, *, rows: int = 100_000, seed: int = 0, k: int = K) -> Path:
    """A reference folder whose slates are one of each of `rows` / k users, as training's are."""
    random = np.random.default_rng([seed, 2])
    shown = slates(world, random.permutation(len(world.users))[: rows // k], random, NO_DRIFT, k)
    n = len(shown.user)
    words = {
        "category": [f"c{c}" for c in world.category[shown.items].ravel()],
        "country": [COUNTRIES[c] for c in np.repeat(shown.country, k)],
        "device": [DEVICES[d] for d in np.repeat(shown.device, k)],
    }
    flags = {name: np.repeat(shown.missing, k) for name in REGISTERED}
    table = pa.table(
        {
            "timestamp": pa.array(np.zeros(n * k, np.int64), pa.timestamp("us", tz="UTC")),
            "user_id": _names("u", np.repeat(shown.user, k)),
            "item_id": _names("i", shown.items.ravel()),
            "origin": ["slate"] * (n * k),
            "position": pa.array(np.tile(np.arange(1, k + 1), n), pa.int32()),
            "label": (random.random(n * k) < shown.scores.ravel()).astype(np.int8),
            "score": shown.scores.ravel(),
            **feature_columns(shown.rows.reshape(n * k, -1), words, flags),
        }
    )
    folder.mkdir(parents=True)
    pq.write_table(table, folder / ROWS, compression="zstd")
    statistics = {
        "schema": REFERENCE_SCHEMA,
        "origin": "slate",
        "rows": table.num_rows,
        "users": n,
        "feature_hash": REGISTRY.hash,
        "row_signature": SCHEMA.signature,
        "snapshot": "drawn",
        "trained_until_us": 0,
        "seed": seed,
        "features": {name: _summary(table, name) | {"read_by_ranker": True} for name in SCHEMA.names},
    }
    (folder / STATISTICS).write_text(json.dumps(statistics))
    importance = {name: 1 / (1 + at) for at, name in enumerate(("retrieval", "log_price", "category_share"))}
    (folder / IMPORTANCE).write_text(json.dumps(importance))
    ids = np.arange(min(len(world.items), 20_000))
    some = shown.user[:2_000]
    np.savez(
        folder / EMBEDDINGS,
        item_ids=np.array([f"i{i}" for i in ids]),
        items=random.standard_normal((len(ids), 128), np.float32),
        user_ids=np.array([f"u{u}" for u in some]),
        users=random.standard_normal((len(some), 128), np.float32),
    )
    return folder


def write_log(
    home: Path,
    world: World,
    *,
    requests: int,
    since_us: int,
    until_us: int,
    drift: Drift = NO_DRIFT,
    rows_share: float = 1.0,
    seed: int = 0,
    k: int = K,
    feature_hash: str = "",
) -> None:
    """Exposures and contexts as rolled segments, evenly over the window. Users come as often as the seed says; a drift
    that gives `DE` more does so by whom it lets come."""
    random = np.random.default_rng([seed, 3])
    stamps = np.sort(random.integers(since_us, until_us, requests))
    change = since_us + (until_us - since_us) * drift.since
    files = max(1, -(-requests // REQUESTS_A_FILE))
    for number, some in enumerate(np.array_split(stamps, files)):
        parts = [(some[some < change], NO_DRIFT), (some[some >= change], drift)]
        for part, (times, how) in enumerate(parts):
            if not len(times):
                continue
            weights = np.where(world.country == COUNTRIES.index("DE"), how.country, 1.0)
            user = random.choice(len(world.users), len(times), p=weights / weights.sum())
            shown = slates(world, user, random, how, k)
            ids = [_uuid7(int(t), random) for t in times.tolist()]
            name = f"drawn-{seed}-{number:06d}-{part}"
            hash_ = feature_hash or REGISTRY.hash
            _write(home, EXPOSURES, _exposures(shown, ids, times, hash_), name)
            kept = random.random(len(times)) < rows_share
            _write(home, CONTEXTS, _contexts(world, shown, ids, times, kept), name)


def _exposures(shown: Slates, ids: list[str], times: NDArray[np.int64], feature_hash: str) -> dict[str, pa.Array]:
    n, k = shown.items.shape
    versions = Versions(BENTO, "v1-r", RANKER, "v1-f", "rules", features=feature_hash, item_snapshot="s")
    fields = {name: pa.array([getattr(versions, name)] * n, pa.string()) for name in Versions.__struct_fields__}
    return {
        "request_id": pa.array(ids),
        "timestamp_us": pa.array(times),
        "clock_us": pa.array(times),
        "unit": _names("u", shown.user),
        "user_id": _names("u", shown.user),
        "assigned": pa.array(["champion"] * n),
        "served": pa.array(["champion"] * n),
        "probability": pa.array(np.ones(n)),
        "exploration": pa.array(np.zeros(n, bool)),
        "outcome": pa.array(["ok"] * n),
        "degradation": pa.array(["full"] * n),
        "item_ids": _lists(_names("i", shown.items.ravel()), n, k),
        "versions": pa.StructArray.from_arrays(list(fields.values()), list(fields)),
        "schema": pa.array(np.full(n, EXPOSURE_SCHEMA), pa.int32()),
    }


def _contexts(
    world: World, shown: Slates, ids: list[str], times: NDArray[np.int64], kept: NDArray[np.bool_]
) -> dict[str, pa.Array]:
    n, k = shown.items.shape
    items, scores = _names("i", shown.items.ravel()), pa.array(shown.scores.ravel().astype(np.float64))
    categories = _names("c", world.category[shown.items].ravel())
    blobs = [shown.rows[at].tobytes() for at in range(n)]
    fields = {
        "item_ids": _lists(items, n, k),
        "categories": _lists(categories, n, k),
        "scores": _lists(scores, n, k),
        "signature": pa.array([SCHEMA.signature[:16]] * n),
        "rows": pa.array(blobs, pa.binary()),
    }
    used = len(REGISTERED)
    source = np.where(np.repeat(shown.missing, used), "default", "store")
    features = pa.StructArray.from_arrays(
        [
            pa.array(list(REGISTERED) * n),
            pa.array(["1.0"] * (n * used)),
            pa.array(np.full(n * used, 60.0)),
            pa.array(source),
        ],
        ["name", "value", "age_s", "source"],
    )
    keys = pa.array(["country", "device"] * n)
    country = np.array(COUNTRIES, object)[shown.country]
    values = np.stack([country, np.array(DEVICES, object)[shown.device]], axis=1).ravel()
    return {
        "request_id": pa.array(ids),
        "timestamp_us": pa.array(times + 1_000),
        "clock_us": pa.array(times),
        "user_id": _names("u", shown.user),
        "k": pa.array(np.full(n, k), pa.int32()),
        "context": pa.MapArray.from_arrays(_offsets(n, 2), keys, pa.array(values, pa.string())),
        "features": pa.ListArray.from_arrays(_offsets(n, used), features),
        "top_item_ids": _lists(items, n, k),
        "top_scores": _lists(scores, n, k),
        "ranked_by": pa.array(["dcn"] * n),
        "shown": pa.StructArray.from_arrays(list(fields.values()), list(fields), mask=pa.array(~kept)),
        "schema": pa.array(np.full(n, CONTEXT_SCHEMA), pa.int32()),
    }


def _write(home: Path, kind: LogKind, columns: dict[str, pa.Array], name: str) -> None:
    n = len(columns["request_id"])
    arrays = [columns[f.name] if f.name in columns else pa.nulls(n, f.type) for f in kind.arrow]
    table = pa.table(
        [a if a.type == f.type else a.cast(f.type) for a, f in zip(arrays, kind.arrow, strict=True)],
        schema=kind.arrow,
    )
    folder = log_folder(home, kind) / f"date={day_of(table['timestamp_us'][0].as_py())}"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"{name}.parquet", compression="zstd")


def _summary(table: pa.Table, name: str) -> dict[str, object]:
    tally = Tally("word" if name in WORDS else "number", np.random.default_rng(0))
    tally.add(table[name], table[default_flag(MADE_FROM[name])] if name in MADE_FROM else None)
    return tally.summary().model_dump()


def _names(letter: str, numbers: NDArray[np.int64]) -> pa.Array:
    return pa.array([f"{letter}{number}" for number in numbers.tolist()])


def _lists(values: pa.Array, n: int, k: int) -> pa.Array:
    return pa.ListArray.from_arrays(_offsets(n, k), values)


def _offsets(n: int, k: int) -> pa.Array:
    return pa.array(np.arange(n + 1, dtype=np.int32) * k)


def _uuid7(at_us: int, random: np.random.Generator) -> str:
    low = int(random.integers(0, 1 << 62))
    high = int(random.integers(0, 1 << 12))
    return str(UUID(int=(at_us // 1000 << 80) | (7 << 76) | (high << 64) | (2 << 62) | low))
