"""Rows on both sides of the cut, as many as one can look at in seconds, and the catalogue beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.dataset import DatasetConfig
from features.labels import LabelRule
from training.data import read

MOST_ROWS = 500_000  # on either side, those nearest to the cut
WINDOWS_BEFORE = 3  # how far back, in lengths of the test window


@dataclass(frozen=True, slots=True)
class Across:
    """before, after: `user_id`, `item_id`, `event`, `value` (null where there is none), `at_us` int64, `positive` bool,
    in the order of time. items: items.parquet. user_ids: of those before that are in users.parquet, in its order."""

    before: pa.Table
    after: pa.Table
    items: pa.Table
    user_ids: Sequence[str] = ()


def rows_across(folder: Path, config: DatasetConfig, cut_us: int, to_us: int) -> Across:
    """The rows around `cut_us`: the test window, and a few times its length before it."""
    since_us = cut_us - WINDOWS_BEFORE * max(to_us - cut_us, 1)
    earlier, later = _moments(folder, since_us, cut_us), _moments(folder, cut_us, to_us)
    if len(earlier) > MOST_ROWS:
        since_us = int(earlier[-MOST_ROWS])
    if len(later) > MOST_ROWS:
        to_us = int(later[MOST_ROWS - 1]) + 1
    before = _rows(folder, config, since_us, cut_us)
    users = read.users(folder, ["user_id"])
    there = pa.array([], pa.string()) if users is None else users["user_id"].cast(pa.string())
    return Across(
        before.slice(max(0, before.num_rows - MOST_ROWS)),
        _rows(folder, config, cut_us, to_us).slice(0, MOST_ROWS),
        read.items(folder),
        there.filter(pc.is_in(there, value_set=pc.unique(before["user_id"]))).to_pylist(),
    )


def _moments(folder: Path, since_us: int, until_us: int) -> NDArray[np.int64]:
    """Sorted. Numbers alone, so that only the rows that are looked at are read whole."""
    stamps = read.interactions(folder, ["timestamp"], since_us=since_us, until_us=until_us)["timestamp"]
    return np.sort(np.asarray(stamps.cast(read.TIMESTAMP).cast(pa.int64()).to_numpy(), np.int64))


def _rows(folder: Path, config: DatasetConfig, since_us: int, until_us: int) -> pa.Table:
    names = set(read.schema(folder / "interactions.parquet").names)
    columns = ["user_id", "item_id", "timestamp", "event", *(["value"] if "value" in names else [])]
    table = read.interactions(folder, columns, since_us=since_us, until_us=until_us)
    value = table["value"] if "value" in names else None
    positive = LabelRule.of(config).mask(table["event"], value)
    return pa.table(
        {
            "user_id": table["user_id"].cast(pa.string()),
            "item_id": table["item_id"].cast(pa.string()),
            "event": table["event"].cast(pa.string()),
            "value": pa.nulls(table.num_rows, pa.float64()) if value is None else pc.cast(value, pa.float64()),
            "at_us": table["timestamp"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()),
            "positive": pa.array(positive),
        }
    ).sort_by("at_us")
