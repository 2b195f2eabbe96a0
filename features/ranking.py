"""The rows that rankers read: one definition for training and serving. K candidates, N items, F columns.

A row is float32; a categorical column holds its index as a float (exact up to 2**24) and the model casts it.
Columns that depend on the item alone are computed once for the whole catalogue (`item_block`) and gathered.
Nothing here is a row number of a user or an item: the retrieval models that a ranker learns beside and those that
it serves beside are two fits, and only what means the same in both may be a column.
"""

import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.catalogue import Catalogue
from contracts.serving import HISTORY_LENGTH, SOURCES
from features.item_item import ItemItem, agreement, latest
from features.registry import REGISTRY

DAY_US = 86_400_000_000
COUNTRY_BUCKETS = 128
DEVICES = ("", "ios", "android", "web", "desktop", "mobile", "tablet", "tv")  # index 0: unknown or another
CATEGORY_BUCKETS = 512
CREATOR_BUCKETS = 1024
TREND_PRIOR = 0.1  # events: what a ratio of two counts is drawn to one by
NO_LENGTH = np.float32(1e-9)  # of a vector that is not there: it is divided by
NEVER_H = 24 * 365.0  # "hours since the last interaction" of a user without one

# Counts of the registry that enter a row as log(1 + count).
ITEM_COUNTS = (
    "item_pop_1d",
    "item_pop_3d",
    "item_pop_7d",
    "item_pop_14d",
    "item_pop_60d",
    "item_pop_total",
    "item_users_30d",
    "item_trending_score",
)
ITEM_RATES = ("item_ctr_7d", "item_completion_rate_7d")
USER_COUNTS = (
    "user_avg_session_length_min",
    "user_positives_30d",
    "user_positives_total",
    "user_active_days_30d",
    "user_tenure_days",
)
ITEM_COLUMNS = (
    *(f"log_{name}" for name in ITEM_COUNTS),
    *ITEM_RATES,
    "log_age_d",
    "log_price",
    "price_known",
    "promoted",
    "trend_3_14d",
    "trend_7_60d",
    "trend_14d_total",
    "log_category_pop",
)
ITEM_CATEGORICAL = ("category", "creator")
# Half-lives, in days, of the histories whose agreement with an item is a column each.
AGREEMENTS_D: Mapping[str, float | None] = {"60d": 60.0, "120d": 120.0, "all": None}
PAIR_COLUMNS = (
    *(f"source_{name}" for name in SOURCES),
    *(f"brought_{name}" for name in SOURCES),
    "retrieval",
    "log_retrieval_rank",
    "agreeing",
    "two_tower_cosine",
    "graph_z",
    "graph_cosine",
    "category_share",
    "category_lift",
    "price_gap",
    "price_distance",
    "two_tower_history_max",
    "two_tower_history_mean",
    "graph_history_max",
    "graph_history_mean",
    "category_in_history",
    "creator_in_history",
    *(f"{part}_{name}" for name in AGREEMENTS_D for part in ("agree", "log_agree_rank", "agree_share")),
    "log_blend_rank",
    "trend_gap",
    "age_gap",
)
USER_COLUMNS = (
    *(f"log_{name}" for name in USER_COUNTS),
    "log_hours_since_last",
    "history_length",
    "log_seen",
    "log_days_met",
    "met_trend",
    "met_age",
    "met_price",
    "hour_sin",
    "hour_cos",
    "weekday_sin",
    "weekday_cos",
)
USER_CATEGORICAL = ("country", "device")
# Constant within a moment: a ranker that saw only a few moments must not read them (training/models/dcn_v2.py).
CLOCK_COLUMNS = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos")

# Where each group of columns begins.
FIRST_PAIR = len(ITEM_COLUMNS)
FIRST_USER = FIRST_PAIR + len(PAIR_COLUMNS)
FIRST_CATEGORY = FIRST_USER + len(USER_COLUMNS)
# Behind the item's own columns in `ItemBlock.gathered`.
ITEM_COLUMNS_END = FIRST_PAIR + len(ITEM_CATEGORICAL)
N_SOURCES = len(SOURCES)
LOG_POP_3D, LOG_POP_14D, LOG_AGE, LOG_PRICE = (
    ITEM_COLUMNS.index(name) for name in ("log_item_pop_3d", "log_item_pop_14d", "log_age_d", "log_price")
)
# Behind what the sources said, in the order of `PAIR_COLUMNS`.
RETRIEVAL = 2 * N_SOURCES
FIRST_AGREEMENT = PAIR_COLUMNS.index("agree_60d")
LOG_BLEND_RANK = PAIR_COLUMNS.index("log_blend_rank")
CATEGORY_AT, CREATOR_AT, LOG_PRICE_AT = ITEM_COLUMNS_END, ITEM_COLUMNS_END + 1, ITEM_COLUMNS_END + 2
WIDTH = FIRST_CATEGORY + len(ITEM_CATEGORICAL) + len(USER_CATEGORICAL)
MET_HALF_LIFE_D = 60.0  # of the history that means of what was taken up are over
NO_ITEMS, NO_TIMES = np.empty(0, np.int32), np.empty(0, np.int64)
NO_FACTS = (0.0, 0.0, 0.0, 0.0)
_USER_DEFAULTS = tuple((name, REGISTRY[name].default) for name in USER_COUNTS)
_DEVICE_AT = {name: at for at, name in enumerate(DEVICES)}


class Column(msgspec.Struct, frozen=True):
    name: str
    kind: Literal["dense", "categorical"] = "dense"
    size: int = 0  # number of values of a categorical column


class RowSchema(msgspec.Struct, frozen=True):
    """Dense columns first, then categorical ones."""

    columns: tuple[Column, ...]

    @property
    def signature(self) -> str:
        """SHA-256 over the ordered columns: a model and the code that feeds it must agree."""
        return hashlib.sha256(msgspec.json.encode(self.columns)).hexdigest()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def at(self, name: str) -> int:
        return self.names.index(name)


@dataclass(frozen=True, slots=True)
class ItemBlock:
    """Opaque to callers: what `rows` gathers from.

    gathered: float32 [N, 23], what a row needs of its item, side by side, as each array more is another cache miss for
    each candidate: ITEM_COLUMNS, ITEM_CATEGORICAL, category and creator as the catalogue numbers them (exact up to
    2**24), log price.
    """

    gathered: NDArray[np.float32]
    log_price: NDArray[np.float32]  # [N], NaN unknown
    category_at: Mapping[str, int]
    category_prior: NDArray[np.float32]  # [C], share of recent positive events


def row_schema(catalogue: Catalogue | None = None) -> RowSchema:
    """The same for every catalogue: categories and creators enter by a hash of their names, since their row numbers
    change from one catalogue to the next and a ranker outlives a catalogue.
    """
    dense = (*ITEM_COLUMNS, *PAIR_COLUMNS, *USER_COLUMNS)
    sizes = {
        "category": CATEGORY_BUCKETS + 1,
        "creator": CREATOR_BUCKETS + 1,
        "country": COUNTRY_BUCKETS + 1,
        "device": len(DEVICES),
    }
    return RowSchema(
        (
            *(Column(name) for name in dense),
            *(Column(name, "categorical", sizes[name]) for name in (*ITEM_CATEGORICAL, *USER_CATEGORICAL)),
        )
    )


def item_block(catalogue: Catalogue, item_features: Mapping[str, NDArray[np.float32]], now_us: int) -> ItemBlock:
    """Item-only columns for the whole catalogue as of `now_us` (item age; recompute when the item features change).

    item_features: float32 [N] by the names of the registry. A missing column or a NaN is the registry's default.
    """
    n = len(catalogue)

    def column(name: str) -> NDArray[np.float32]:
        default = float(REGISTRY[name].default)
        values = item_features.get(name)
        if values is None:
            return np.full(n, default, np.float32)
        return np.nan_to_num(np.asarray(values, np.float32), nan=default, posinf=default, neginf=default)

    def trend(short: str, long: str) -> NDArray[np.float32]:
        ratio = (np.maximum(column(short), 0) + TREND_PRIOR) / (np.maximum(column(long), 0) + TREND_PRIOR)
        return np.asarray(np.log(ratio), np.float32)

    popular = np.maximum(column("item_pop_14d"), 0)
    of_category = np.bincount(catalogue.category, popular, minlength=len(catalogue.categories))
    age_d = np.maximum(now_us - catalogue.published_us, 0) / DAY_US
    price = np.where(np.isfinite(catalogue.price) & (catalogue.price > 0), catalogue.price, np.nan)
    log_price = np.log1p(price).astype(np.float32)
    dense = [
        *(np.log1p(np.maximum(column(name), 0)) for name in ITEM_COUNTS),
        *(column(name) for name in ITEM_RATES),
        np.log1p(age_d),
        np.nan_to_num(log_price),
        np.isfinite(log_price),
        catalogue.is_promoted,
        trend("item_pop_3d", "item_pop_14d"),
        trend("item_pop_7d", "item_pop_60d"),
        trend("item_pop_14d", "item_pop_total"),
        np.log1p(of_category)[catalogue.category],
    ]
    category = _buckets(catalogue.categories, CATEGORY_BUCKETS)[catalogue.category]
    creator = np.append(_buckets(catalogue.creators, CREATOR_BUCKETS), np.float32(0))[catalogue.creator]  # -1: the last
    counts = np.bincount(catalogue.category, column("item_pop_60d"), minlength=len(catalogue.categories))
    columns = [*dense, category, creator, catalogue.category, catalogue.creator, log_price]
    return ItemBlock(
        # Column by column and then turned round: an eighth of what `column_stack` takes for 200,000 items.
        np.ascontiguousarray(np.stack([np.asarray(c, np.float32) for c in columns]).T),
        log_price,
        {name: at for at, name in enumerate(catalogue.categories)},
        ((counts + 1) / (counts.sum() + len(counts))).astype(np.float32),
    )


def rows(
    *,
    items: NDArray[np.int32],
    retrieval: NDArray[np.float32],
    by_source: NDArray[np.float32],
    history: NDArray[np.int32],
    history_age_h: NDArray[np.float32],
    features: Mapping[str, Any],
    context: Mapping[str, str],
    now_us: int,
    catalogue: Catalogue,
    block: ItemBlock,
    item_embeddings: NDArray[np.float32] | None = None,
    brought: NDArray[np.bool_] | None = None,
    query_embedding: NDArray[np.float32] | None = None,
    graph_items: NDArray[np.float32] | None = None,
    graph_user: NDArray[np.float32] | None = None,
    graph_norms: NDArray[np.float32] | None = None,
    n_seen: int = 0,
    item_item: ItemItem | None = None,
    met: NDArray[np.int32] = NO_ITEMS,
    met_at_us: NDArray[np.int64] = NO_TIMES,
) -> NDArray[np.float32]:
    """float32 [K, F] in the order of `row_schema`. No NaN: an unknown is its default.

    retrieval: [K] merged score; by_source: [K, S] normalised; brought: [K, S], default `by_source > 0`. history: item
    rows, newest first, history_age_h their ages. features: resolved values by name; `user_category_preferences` is a
    mapping category → share. item_embeddings: float32 [N, D] of the two-tower, None without; query_embedding: [D] of
    its query, None when it is missing or late. graph_items [N, G], graph_user [G]: LightGCN, None without; graph_norms:
    `norms_of(graph_items)`, where the caller keeps them. n_seen: items that the user has met. item_item: weights
    between items, None without; met: int32 [M], what the user took up, and met_at_us when.
    """
    k = len(items)
    if brought is None:
        brought = by_source > 0
    out = np.zeros((k, WIDTH), np.float32)
    # `take` throughout: a fancy index over two dimensions takes several times as long.
    gathered = block.gathered.take(items, axis=0)
    out[:, :FIRST_PAIR] = gathered[:, :FIRST_PAIR]
    out[:, FIRST_CATEGORY : FIRST_CATEGORY + 2] = gathered[:, FIRST_PAIR:ITEM_COLUMNS_END]

    category = gathered[:, CATEGORY_AT].astype(np.int32)
    pair = out[:, FIRST_PAIR:FIRST_USER]
    pair[:, :N_SOURCES] = by_source
    pair[:, N_SOURCES:RETRIEVAL] = brought
    rest = pair[:, RETRIEVAL:]
    rest[:, 0] = retrieval
    rest[np.argsort(-retrieval, kind="stable"), 1] = _log_ranks(k)
    rest[:, 2] = np.add.reduce(pair[:, N_SOURCES:RETRIEVAL].T.copy(), axis=0)

    vectors = None if item_embeddings is None else take_rows(item_embeddings, items)
    if vectors is not None and query_embedding is not None:
        rest[:, 3] = vectors @ query_embedding
    if graph_items is not None:
        graph = take_rows(graph_items, items)
        norms = norms_of(graph) if graph_norms is None else graph_norms.take(items)
        if graph_user is not None and k:
            dot = graph @ graph_user
            centred = dot - np.add.reduce(dot) / np.float32(k)
            rest[:, 4] = centred / (np.sqrt(np.add.reduce(centred * centred) / np.float32(k)) + 1e-6)
            rest[:, 5] = dot / (norms * (float(np.linalg.norm(graph_user)) + 1e-9))

    preferences = features.get("user_category_preferences")
    if isinstance(preferences, Mapping) and preferences:
        share = np.zeros(len(block.category_prior), np.float32)
        for name, value in preferences.items():
            at = block.category_at.get(name)
            if at is not None:
                share[at] = value
        if share.sum() > 0:
            rest[:, 6] = share.take(category)
            lift = np.log((share + 0.05 * block.category_prior) / (1.05 * block.category_prior))
            rest[:, 7] = lift.take(category)

    history = history[:HISTORY_LENGTH]
    if len(history):
        paid = block.log_price.take(history)
        paid = paid[np.isfinite(paid)]
        if len(paid):
            gap = gathered[:, LOG_PRICE_AT] - paid.mean()
            gap[np.isnan(gap)] = 0
            rest[:, 8] = gap
            rest[:, 9] = np.abs(gap)
        if item_embeddings is not None and vectors is not None:
            _extremes(vectors @ take_rows(item_embeddings, history).T, rest[:, 10], rest[:, 11])
        if graph_items is not None:
            past = take_rows(graph_items, history)
            past = past / (np.linalg.norm(past, axis=1, keepdims=True) + 1e-9)
            _extremes((graph @ past.T) / norms[:, None], rest[:, 12], rest[:, 13])
        in_history = np.bincount(catalogue.category.take(history), minlength=len(block.category_prior))
        rest[:, 14] = in_history.take(category)
        of_history = catalogue.creator.take(history)
        of_history = of_history[of_history >= 0]
        if len(of_history):
            same = of_history[:, None] == gathered[:, CREATOR_AT].astype(np.int32)
            rest[:, 15] = np.add.reduce(same.view(np.uint8), axis=0, dtype=np.uint8)

    facts = NO_FACTS
    if item_item is not None and k:
        facts = _agreements(pair, gathered, items, item_item, met, met_at_us, now_us, block)

    hour = 2 * np.pi * (now_us % DAY_US) / DAY_US
    weekday = 2 * np.pi * ((now_us // DAY_US + 3) % 7) / 7  # 1970-01-01 was a Thursday
    device = context.get("device", "").lower()
    out[:, FIRST_USER:FIRST_CATEGORY] = (
        *(np.log1p(max(float(features.get(name, default)), 0.0)) for name, default in _USER_DEFAULTS),
        np.log1p(max(float(history_age_h[0]), 0.0) if len(history_age_h) else NEVER_H),
        len(history),
        np.log1p(n_seen),
        *facts,
        math.sin(hour),
        math.cos(hour),
        math.sin(weekday),
        math.cos(weekday),
    )
    out[:, FIRST_CATEGORY + 2 :] = (_bucket(context.get("country", ""), COUNTRY_BUCKETS), _DEVICE_AT.get(device, 0))
    # A sum is finite only where every term is; one that overflows costs a look, no more.
    return out if np.isfinite(np.add.reduce(out, axis=None)) else np.nan_to_num(out, copy=False)


def norms_of(graph_items: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [N], lengths of the rows of [N, G], never 0: `graph_norms` of `rows`, the same for every user."""
    return np.asarray(np.sqrt(np.einsum("kg,kg->k", graph_items, graph_items)) + NO_LENGTH)


def _agreements(
    pair: NDArray[np.float32],
    gathered: NDArray[np.float32],
    items: NDArray[np.int32],
    item_item: ItemItem,
    met: NDArray[np.int32],
    met_at_us: NDArray[np.int64],
    now_us: int,
    block: ItemBlock,
) -> tuple[float, float, float, float]:
    """What the history says of each candidate, into its columns of `pair`; the columns of the user are returned."""
    met, met_at_us = latest(met, met_at_us, item_item.n_items)
    if not len(met):
        return NO_FACTS
    own = agreement(item_item, met, met_at_us, now_us, tuple(AGREEMENTS_D.values()), of=items)
    k = len(items)
    places = np.empty(k, np.int64)
    for number, score in enumerate(own):
        at = FIRST_AGREEMENT + 3 * number
        order = np.argsort(-score, kind="stable")
        pair[:, at] = score
        pair[order, at + 1] = _log_ranks(k)
        if (greatest := score[order[0]]) > 0:
            pair[:, at + 2] = score / greatest
        if not number:
            places[order] = np.arange(k)
    places[np.argsort(-gathered[:, LOG_POP_3D], kind="stable")] += np.arange(k)
    pair[np.argsort(places, kind="stable"), LOG_BLEND_RANK] = _log_ranks(k)

    faded = np.exp2((met_at_us - met_at_us.max()) / (DAY_US * MET_HALF_LIFE_D))
    past = block.gathered.take(met, axis=0)
    trend, age, price = ((faded @ past[:, at]) / faded.sum() for at in (LOG_POP_14D, LOG_AGE, LOG_PRICE))
    pair[:, LOG_BLEND_RANK + 1] = gathered[:, LOG_POP_14D] - trend
    pair[:, LOG_BLEND_RANK + 2] = gathered[:, LOG_AGE] - age
    return math.log1p(len(np.unique(met_at_us // DAY_US))), trend, age, price


@cache
def _log_ranks(k: int) -> NDArray[np.float32]:
    """log(1 + rank), float32 [k]."""
    ranks: NDArray[np.float32] = np.log1p(np.arange(k, dtype=np.float32))
    ranks.setflags(write=False)
    return ranks


def _extremes(near: NDArray[np.float32], greatest: NDArray[np.float32], mean: NDArray[np.float32]) -> None:
    """Maximum and mean of each row of `near` [K, H] into [K] each; over few columns turned on its side first, which is
    several times as quick for a maximum as along its rows. The sum is along the rows, as its bits depend on the order.
    """
    np.maximum.reduce(near.T.copy(), axis=0, out=greatest)
    np.divide(np.add.reduce(near, axis=1), np.float32(near.shape[1]), out=mean)


def take_rows(vectors: NDArray[np.float32], rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """`vectors[rows]`, float32 [len(rows), D], with zeros for rows past the end: items that came after the models."""
    if not len(rows) or int(np.maximum.reduce(rows)) < len(vectors):
        return vectors.take(rows, axis=0)
    known = rows < len(vectors)
    out = np.zeros((len(rows), vectors.shape[1]), np.float32)
    out[known] = vectors.take(rows[known], axis=0)
    return out


def _bucket(name: str, buckets: int) -> int:
    """1 … buckets, by CRC-32; 0 for the empty name."""
    return zlib.crc32(name.encode(errors="replace")) % buckets + 1 if name else 0


def _buckets(names: Sequence[str], buckets: int) -> NDArray[np.float32]:
    return np.array([_bucket(name, buckets) for name in names], np.float32)
