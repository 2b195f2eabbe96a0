"""Item features as of now: what the snapshot said as of its moment, carried on by what has happened since. N items.

The stream's counts are the definitions of features/offline/items.py (features/live_items.py). They replace the
snapshot's values as soon as the stream is as old as the window that a definition asks for. Before that, in the first
days of a service, the snapshot still counts:

item_trending_score       what the snapshot has, decayed to now, plus the stream. Where the snapshot was made after the
                          stream began, both know some of the same events: then the larger of the two.
item_ctr_7d,              the snapshot's rate takes the place of the registry's default as what the stream's counts are
item_completion_rate_7d   shrunk to: an item without events keeps its rate, and events take it over one by one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.dataset import DatasetConfig
from features.item_counts import HOUR_US, TRENDING_HALF_LIFE_US, ItemCounts
from features.live_items import is_shown, live_item_features, weights
from features.registry import COMPLETION_PRIOR, CTR_PRIOR, REGISTRY

# A day without events at the beginning of the 7 must not look like a stream that has just begun.
WEEK_US = (7 * 24 - 24) * HOUR_US
TRENDING_WINDOW_US = 10 * TRENDING_HALF_LIFE_US  # what is older weighs a thousandth


@dataclass(frozen=True, slots=True)
class Refreshed:
    """columns: feature → float32 [N]. wishes: float64 [N], positive events of the last 7 days by weight."""

    columns: Mapping[str, NDArray[np.float32]]
    wishes: NDArray[np.float64]


def refreshed(
    counts: ItemCounts,
    rows: NDArray[np.int32],
    config: DatasetConfig,
    base: Mapping[str, NDArray[np.float32]],
    stamps_us: Mapping[str, int],
    n_items: int,
    now_us: int,
) -> Refreshed:
    """
    Args:
        rows: int32 [R], the catalogue row of each row of `counts`, -1 outside it.
        base: the snapshot's columns, NaN where never computed; stamps_us: their moments.
        now_us: on the data set's clock, like `stamps_us`; `counts` has its own, that of the wall.

    Raises:
        UsageError: as `features.live_items.weights`.
    """
    live = live_item_features(counts, config, rows, n_items)
    age_us = counts.now_us - counts.since_us
    # On the clock of a log that ended, the stream began after everything that the snapshot knows.
    began_us = min(now_us, counts.since_us)
    columns: dict[str, NDArray[np.float32]] = {}
    for name, column in live.items():
        known = base.get(name)
        if known is None or name not in stamps_us:
            columns[name] = column
        elif name == "item_trending_score":
            passed = max(now_us - stamps_us[name], 0) / TRENDING_HALF_LIFE_US
            before = np.nan_to_num(known) * np.float32(2.0**-passed)
            if age_us >= TRENDING_WINDOW_US:
                columns[name] = column
            elif stamps_us[name] <= began_us:
                columns[name] = before + column
            else:
                columns[name] = np.maximum(before, column)
        elif age_us >= WEEK_US:
            columns[name] = column
        else:
            columns[name] = _shrunk_to(name, column, known, counts, rows, config, n_items)
    known_rows = rows >= 0
    wishes = (weights(counts, config) * counts.n)[known_rows]
    return Refreshed(columns, np.bincount(rows[known_rows], wishes, n_items).astype(np.float64))


def _shrunk_to(
    name: str,
    live: NDArray[np.float32],
    known: NDArray[np.float32],
    counts: ItemCounts,
    rows: NDArray[np.int32],
    config: DatasetConfig,
    n_items: int,
) -> NDArray[np.float32]:
    """`live` with the snapshot's rates as what it is shrunk to, in place of the registry's default."""
    default = REGISTRY[name].default
    if name == "item_ctr_7d":
        prior, trials, counted = CTR_PRIOR, counts.n, is_shown(counts, config)
    else:
        prior, trials = COMPLETION_PRIOR, counts.valued
        counted = np.array(counts.events, object) == config.completion_event
    chosen = (rows >= 0) & counted
    n = np.bincount(rows[chosen], trials[chosen].astype(np.float64), n_items)
    shift = (np.where(np.isnan(known), default, known) - default) * prior / (n + prior)
    return (live + shift).astype(np.float32)
