"""The window after a cut, as a test set and as labels: who did what, in the row numbers of the models.

A user who is not in the training log is -1; an item that the catalogue does not have gets a number of its
own from N on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.catalogue import Catalogue
from contracts.dataset import DatasetConfig
from features.labels import LabelRule
from training.data import read
from training.evaluation.protocol import TestSet, hold_out
from training.interactions import Log

TEST_SHARE = 0.10


@dataclass(frozen=True, slots=True)
class Window:
    """Positive events in [from_us, to_us), aligned. user: int32, -1 unknown; item: int64; timestamp_us: int64; rule:
    int64, which of the data set's positives each is."""

    from_us: int
    to_us: int
    user: NDArray[np.int32]
    item: NDArray[np.int64]
    timestamp_us: NDArray[np.int64]
    rule: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)


def read_window(
    folder: Path, config: DatasetConfig, catalogue: Catalogue, log: Log, from_us: int, to_us: int
) -> Window:
    """Positive events of the window, of everybody, on any item."""
    columns = ["user_id", "item_id", "timestamp", "event"]
    if any(p.min_value is not None for p in config.positives):
        columns.append("value")
    table = read.interactions(folder, columns, since_us=from_us, until_us=to_us)
    rule = LabelRule.of(config).places(table["event"], table["value"] if "value" in columns else None)
    table = table.filter(pa.array(rule >= 0))
    user = _rows(table["user_id"], log.user_ids)
    item = _rows(table["item_id"], catalogue.item_ids)
    unknown = pc.dictionary_encode(pa.array(table["item_id"].to_pylist(), pa.string()))
    numbers = np.asarray(unknown.indices, np.int64) + len(catalogue)
    timestamps = table["timestamp"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    items = np.where(item >= 0, item, numbers)
    return Window(from_us, to_us, user.astype(np.int32), items, timestamps, rule[rule >= 0])


def _rows(column: pa.ChunkedArray, ids: object) -> NDArray[np.int64]:
    values = ids if isinstance(ids, pa.Array) else pa.array(list(ids), pa.string())  # type: ignore[call-overload]
    found = pc.index_in(column.cast(pa.string()), value_set=values)
    return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int64)


def test_set(log: Log, window: Window, n_items: int) -> TestSet:
    """By the protocol: users seen in training with at least one item of the window that they had not met."""
    positives = log.positives()
    return hold_out(
        train_users=positives.user,
        train_items=positives.item,
        test_users=window.user,
        test_items=window.item,
        n_items=n_items,
    )


def user_words(
    folder: Path, config: DatasetConfig, log: Log, users: NDArray[np.int64], names: Sequence[str] | None = None
) -> dict[str, list[str]]:
    """Column → its value for each of `users`, empty where it is not known; only columns that describe users.

    names: default: the slice columns of the data set.
    """
    values: dict[str, list[str]] = {}
    for name in config.slices if names is None else names:
        if name in log.attribute_columns:
            codes = log.attributes[users, log.attribute_columns.index(name)]
            values[name] = [log.attribute_values[name][code] for code in codes]
        else:
            table = read.users(folder)
            if table is None or name not in table.column_names:
                continue
            at = _rows(pa.chunked_array([pa.array([log.user_ids[u] for u in users], pa.string())]), table["user_id"])
            column = table[name].cast(pa.string()).to_pylist()
            values[name] = [column[i] or "" if i >= 0 else "" for i in at]
    return values


def met_counts(log: Log) -> NDArray[np.int64]:
    """Number of different items that each user met with a positive event, int64 [U]."""
    positives = log.positives()
    pairs = np.unique(positives.user.astype(np.int64) * (int(positives.item.max(initial=0)) + 1) + positives.item)
    return np.bincount(pairs // (int(positives.item.max(initial=0)) + 1), minlength=log.n_users)


def time_of_share(folder: Path, share: float, until_us: int | None = None) -> int:
    """The moment before which 1 − `share` of the rows lie, µs. All rows equal in time: the last moment plus one."""
    stamps = np.sort(
        read.interactions(folder, ["timestamp"], until_us=until_us)["timestamp"].cast(pa.int64()).to_numpy()
    )
    if not len(stamps):
        return 0
    return int(stamps[min(int(len(stamps) * (1 - share)), len(stamps) - 1)])
