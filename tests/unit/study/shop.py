"""A data set of a few rows, written by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.dataset import DatasetConfig

DAY_US = 86_400_000_000
CONFIG = """\
name = "shop"
clock = "log_end"
slices = ["country"]

[[positives]]
event = "purchase"

[[features]]
column = "country"
table = "users"
kind = "categorical"
"""


def write_shop(
    folder: Path,
    events: Sequence[tuple[str, str, int]],
    items: Sequence[Mapping[str, Any]],
    users: Sequence[Mapping[str, Any]] = (),
    config: str = CONFIG,
    **columns: Sequence[Any],
) -> DatasetConfig:
    """events: (user, item, µs), each a purchase. items, users: rows of their tables. columns: more of the events'."""
    folder.mkdir()
    (folder / "dataset.toml").write_text(config)
    who, what, when = zip(*events, strict=True)
    log = {"user_id": who, "item_id": what, "timestamp": pa.array(when, pa.timestamp("us", tz="UTC"))}
    pq.write_table(pa.table(log | {"event": ["purchase"] * len(events)} | columns), folder / "interactions.parquet")
    published = pa.array([row.get("published_at", 0) for row in items], pa.timestamp("us", tz="UTC"))
    table = pa.Table.from_pylist([{"category": "c", **row} for row in items])
    if "published_at" in table.column_names:
        table = table.drop_columns("published_at")
    pq.write_table(table.append_column("published_at", published), folder / "items.parquet")
    if users:
        pq.write_table(pa.Table.from_pylist(list(users)), folder / "users.parquet")
    return DatasetConfig.read(folder)
