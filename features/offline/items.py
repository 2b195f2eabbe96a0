"""Item features as of many moments, in one pass over the log. N items, T moments, E events.

Events at or after a moment never count for it. Decayed sums are carried from moment to moment, so that a log of years
neither overflows nor is summed again; `np.bincount` adds in the order of the log, so that results repeat bit by bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.offline.columns import fetch
from features.offline.log import Log, open_log
from features.registry import (
    COMPLETION_PRIOR,
    CTR_PRIOR,
    POPULARITY_HALF_LIVES_D,
    REGISTRY,
    TRENDING_HALF_LIFE_H,
)

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
HALF_LIVES_US = {name: days * DAY_US for name, days in POPULARITY_HALF_LIVES_D.items()} | {
    "item_trending_score": TRENDING_HALF_LIFE_H * HOUR_US
}
# Item features that are stored numbers, with their defaults.
STORED = {d.name: d.default for d in REGISTRY.of("item") if d.dtype == "float" and d.kind != "on_demand"}


@dataclass(frozen=True, slots=True)
class ItemEvents:
    """The log as aligned columns, oldest first, items outside the catalogue left out. All [E]."""

    item: NDArray[np.int32]
    at: NDArray[np.int64]
    weight: NDArray[np.float64]
    impression: NDArray[np.bool_]
    click: NDArray[np.bool_]
    completed: NDArray[np.float64]  # NaN: none
    user: NDArray[np.int64]  # a number per user, for counting different ones
    n_items: int
    has_impressions: bool
    has_completions: bool


def item_features_as_of(
    folder: Path, t_us: int, item_ids: Sequence[str] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Every item feature but embeddings from events strictly before `t_us`: name → float32 [N], no NaN.

    Args:
        item_ids: the order of the rows; default: items.parquet.

    Raises:
        DataError: the folder is no data set.
    """
    return {name: rows[0] for name, rows in item_features_at(folder, [t_us], item_ids).items()}


def item_features_at(
    folder: Path, moments_us: Sequence[int], item_ids: Sequence[str] | None = None
) -> dict[str, NDArray[np.float32]]:
    """The same at many moments, ascending: name → float32 [T, N]."""
    with open_log(folder) as log:
        ids = log.item_ids() if item_ids is None else item_ids
        return compute(read_events(log, ids, max(moments_us, default=0)), moments_us)


def read_events(log: Log, item_ids: Sequence[str], until_us: int) -> ItemEvents:
    """Events strictly before `until_us`, with items as rows of `item_ids`."""
    log.db.register("wanted", pa.table({"item_id": pa.array(item_ids, pa.string()), "row": np.arange(len(item_ids))}))
    log.db.execute(
        f"""CREATE OR REPLACE TEMP TABLE people AS
            SELECT user_id, events, row_number() OVER (ORDER BY user_id) AS user FROM (
                SELECT user_id, count(*) AS events FROM log SEMI JOIN wanted USING (item_id)
                WHERE at_us < {int(until_us)} GROUP BY user_id)"""  # noqa: S608 - a number
    )
    found = fetch(
        log.db.sql(
            f"""SELECT w.row::INTEGER AS item, at_us, weight, impression, click,
                   coalesce(completed, 'nan') AS completed, p.user
               FROM log JOIN wanted w USING (item_id) JOIN people p USING (user_id) WHERE at_us < {int(until_us)}
               ORDER BY at_us, item, p.user, event, weight"""  # noqa: S608 - a number
        ),
        int(log.db.execute("SELECT coalesce(sum(events), 0) FROM people").fetchall()[0][0]),
        {
            "item": np.int32,
            "at_us": np.int64,
            "weight": np.float64,
            "impression": bool,
            "click": bool,
            "completed": np.float64,
            "user": np.int64,
        },
    )
    return ItemEvents(
        item=found["item"],
        at=found["at_us"],
        weight=found["weight"],
        impression=found["impression"],
        click=found["click"],
        completed=found["completed"],
        user=found["user"],
        n_items=len(item_ids),
        has_impressions=log.config.impression_event is not None,
        has_completions=log.config.completion_event is not None,
    )


def measurable(events: ItemEvents) -> tuple[str, ...]:
    """Item features that this log can say something about. The others are never written, and served as defaults."""
    names = [*HALF_LIVES_US, "item_pop_total", "item_users_30d"]
    if events.has_impressions:
        names.append("item_ctr_7d")
    if events.has_completions:
        names.append("item_completion_rate_7d")
    return tuple(names)


def compute(events: ItemEvents, moments_us: Sequence[int]) -> dict[str, NDArray[np.float32]]:
    """name → float32 [T, N] for every stored item feature that is a number.

    Args:
        moments_us: ascending.
    """
    out = {name: np.full((len(moments_us), events.n_items), default, np.float32) for name, default in STORED.items()}
    for row, (_, columns) in enumerate(walk(events, moments_us)):
        for name, column in columns.items():
            out[name][row] = column
    return out


def walk(events: ItemEvents, moments_us: Sequence[int]) -> Iterator[tuple[int, dict[str, NDArray[np.float32]]]]:
    """Moment by moment, ascending: (moment, name → float32 [N]). Memory does not grow with the number of moments."""
    n = events.n_items
    sums = {name: np.zeros(n) for name in HALF_LIVES_US}
    total = np.zeros(n)
    start, before = 0, min(moments_us, default=0)
    for now in moments_us:
        if now < before:
            raise ValueError("moments must ascend")
        end = int(np.searchsorted(events.at, now, side="left"))
        new = slice(start, end)
        item, weight = events.item[new], events.weight[new]
        age = now - events.at[new]
        columns = {name: np.full(n, default, np.float32) for name, default in STORED.items()}
        for name, half_life in HALF_LIVES_US.items():
            sums[name] *= 2.0 ** (-(now - before) / half_life)
            sums[name] += np.bincount(item, weight * np.exp2(-age / half_life), n)
            columns[name] = sums[name].astype(np.float32)
        total += np.bincount(item, weight, n)
        columns["item_pop_total"] = total.astype(np.float32)
        _windows(events, now, end, columns)
        yield now, columns
        start, before = end, now


def _windows(events: ItemEvents, now: int, end: int, out: dict[str, NDArray[np.float32]]) -> None:
    """The features over the last 7 and 30 days."""
    n = events.n_items
    week = slice(int(np.searchsorted(events.at, now - 7 * DAY_US, side="left")), end)
    month = slice(int(np.searchsorted(events.at, now - 30 * DAY_US, side="left")), end)
    item = events.item[week]
    if events.has_impressions:
        prior = REGISTRY["item_ctr_7d"].default
        shown = np.bincount(item[events.impression[week]], minlength=n)
        clicked = np.minimum(np.bincount(item[events.click[week]], minlength=n), shown)
        out["item_ctr_7d"] = ((clicked + prior * CTR_PRIOR) / (shown + CTR_PRIOR)).astype(np.float32)
    if events.has_completions:
        prior = REGISTRY["item_completion_rate_7d"].default
        share = events.completed[week]
        seen = ~np.isnan(share)
        views = np.bincount(item[seen], minlength=n)
        done = np.bincount(item[seen], np.clip(share[seen], 0, 1), n)
        out["item_completion_rate_7d"] = ((done + prior * COMPLETION_PRIOR) / (views + COMPLETION_PRIOR)).astype(
            np.float32
        )
    liked = events.weight[month] > 0
    users = int(events.user.max(initial=0)) + 1
    pairs = np.unique(events.item[month][liked].astype(np.int64) * users + events.user[month][liked])
    out["item_users_30d"] = (np.bincount(pairs // users, minlength=n)).astype(np.float32)
