"""A small valid data set that a test changes where it wants to."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

NOW_US = 1_700_000_000_000_000  # 2023-11-14, the clock of the tests
START = datetime(2023, 9, 20, tzinfo=UTC)
UTC_US = pa.timestamp("us", tz="UTC")
CONFIG = 'name = "small"\nclock = "log_end"\n[[positives]]\nevent = "click"\n'


@pytest.fixture
def interactions() -> dict[str, pa.Array]:
    """200 rows of 10 users and 20 items, 4 hours apart: September and October."""
    return {
        "user_id": pa.array([f"u{i % 10}" for i in range(200)]),
        "item_id": pa.array([f"i{i % 20:02d}" for i in range(200)]),
        "timestamp": pa.array([START + timedelta(hours=4 * i) for i in range(200)], UTC_US),
        "event": pa.array(["click"] * 200),
    }


@pytest.fixture
def items() -> dict[str, pa.Array]:
    return {
        "item_id": pa.array([f"i{i:02d}" for i in range(20)]),
        "category": pa.array([f"c{i % 3}" for i in range(20)]),
        "published_at": pa.array([START] * 20, UTC_US),
    }


@pytest.fixture
def make(tmp_path: Path, interactions: dict[str, pa.Array], items: dict[str, pa.Array]) -> Callable[..., Path]:
    """`make(name, log={column: values}, shop={…}, people={…}, config=…)`: a value of None drops the column."""

    def build(
        name: str = "data",
        *,
        log: dict[str, Any] | None = None,
        shop: dict[str, Any] | None = None,
        people: dict[str, Any] | None = None,
        config: str = CONFIG,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file, base, change in (("interactions", interactions, log), ("items", items, shop)):
            columns = {k: v for k, v in (base | (change or {})).items() if v is not None}
            pq.write_table(pa.table(columns), folder / f"{file}.parquet")
        if people is not None:
            pq.write_table(pa.table(people), folder / "users.parquet")
        (folder / "dataset.toml").write_text(config)
        return folder

    return build


@pytest.fixture
def now_us() -> int:
    return NOW_US
