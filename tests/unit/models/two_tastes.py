"""A tiny world with two tastes: users of even rows want items of even rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.models.lightgcn import LightGCNConfig
from training.models.two_tower import TwoTowerConfig
from training.retrieval import RetrievalConfig

DAY_US = 86_400_000_000
START_US = 1_700_000_000_000_000
UNTIL_US = START_US + 30 * DAY_US
USERS, ITEMS = 24, 30

SMALL = RetrievalConfig(
    two_tower=TwoTowerConfig(min_steps=40, max_steps=40, batch=128, hidden=32, title_buckets=64),
    graph=LightGCNConfig(min_steps=30, max_steps=30, dimensions=16, batch=256),
)


def write_world(folder: Path) -> Path:
    """Item i30 comes after the cut, i29 before it but nobody ever wants it; impressions are of everything."""
    folder.mkdir()
    draw = np.random.default_rng(5)
    n = 1500
    user = draw.integers(0, USERS, n)
    item = 2 * draw.integers(0, (ITEMS - 1) // 2, n) + user % 2
    stray = draw.random(n) < 0.05
    item[stray] = draw.integers(0, ITEMS - 1, int(stray.sum()))
    time = START_US + np.sort(draw.integers(0, 31 * DAY_US, n))
    event = np.where(draw.random(n) < 0.3, "impression", "click")
    interactions = {
        "user_id": [f"u{u:02d}" for u in user],
        "item_id": [f"i{i:02d}" for i in item],
        "timestamp": pa.array(time, pa.timestamp("us", tz="UTC")),
        "event": event,
        "device": np.where(user % 3 == 0, "ios", "web"),
    }
    pq.write_table(pa.table(interactions), folder / "interactions.parquet")
    published = [START_US] * ITEMS + [UNTIL_US + DAY_US]
    items = {
        "item_id": [f"i{i:02d}" for i in range(ITEMS + 1)],
        "category": [("even", "odd")[i % 2] for i in range(ITEMS + 1)],
        "published_at": pa.array(published, pa.timestamp("us", tz="UTC")),
        "creator_id": [None if i % 5 == 0 else f"c{i % 3}" for i in range(ITEMS + 1)],
        "title": [None if i == 3 else f"{('red', 'blue')[i % 2]} thing {i}" for i in range(ITEMS + 1)],
        "price": [None if i == 4 else float(i) for i in range(ITEMS + 1)],
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    (folder / "dataset.toml").write_text(
        'name = "two-tastes"\nclock = "log_end"\nimpression_event = "impression"\n'
        'positives = [{event = "click"}]\n'
        'features = [{column = "device", table = "interactions", kind = "categorical"}]\n'
    )
    return folder
