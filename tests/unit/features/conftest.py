"""A data set of a few rows, written by the test itself."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
CONFIG = """
name = "tiny"
clock = "log_end"
impression_event = "impression"
completion_event = "completion"
session_gap_min = 30

[[positives]]
event = "click"

[[positives]]
event = "purchase"
weight = 2.0

[[positives]]
event = "rating"
min_value = 4.0
"""

Row = tuple[str, str, int, str] | tuple[str, str, int, str, float | None]
Write = Callable[..., Path]


def write_data_set(
    folder: Path, rows: Sequence[Row], items: dict[str, str] | None = None, config: str = CONFIG
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    whole: list[tuple[Any, ...]] = [(*row, None)[:5] for row in rows]
    whole.sort(key=lambda row: row[:4])
    columns = list(zip(*whole, strict=True)) or [()] * 5
    pq.write_table(
        pa.table(
            {
                "user_id": pa.array(columns[0], pa.string()),
                "item_id": pa.array(columns[1], pa.string()),
                "timestamp": pa.array(columns[2], pa.timestamp("us", "UTC")),
                "event": pa.array(columns[3], pa.string()),
                "value": pa.array(columns[4], pa.float64()),
            }
        ),
        folder / "interactions.parquet",
    )
    catalogue = items or dict.fromkeys(sorted({row[1] for row in whole}), "all")
    pq.write_table(
        pa.table(
            {
                "item_id": list(catalogue),
                "category": list(catalogue.values()),
                "published_at": pa.array([0] * len(catalogue), pa.timestamp("us", "UTC")),
            }
        ),
        folder / "items.parquet",
    )
    (folder / "dataset.toml").write_text(config)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(rows, items={id: category}, config=…, name=…) → folder. A row: user, item, µs, event, optional value."""

    def write_here(rows: Sequence[Row], *rest: Any, name: str = "data", **more: Any) -> Path:
        return write_data_set(tmp_path / name, rows, *rest, **more)

    return write_here


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three weeks of 12 users and 9 items, with every kind of event, drawn with a fixed seed."""
    random = np.random.default_rng(5)
    rows: list[Row] = []
    for _ in range(900):
        user, item = f"u{random.integers(12)}", f"i{random.integers(9)}"
        at = int(random.integers(3 * DAY, 24 * DAY)) // HOUR * HOUR  # whole hours: some events share a moment
        event = str(random.choice(["impression", "click", "purchase", "rating", "completion"]))
        value = {"rating": float(random.integers(1, 6)), "completion": float(random.random())}.get(event)
        rows.append((user, item, at, event, value))
    return write_data_set(tmp_path_factory.mktemp("world"), rows, {f"i{n}": f"c{n % 3}" for n in range(9)})
