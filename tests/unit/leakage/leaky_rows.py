"""Rows of a ranker with labels that follow one column a little, and places to plant a leak in."""

import numpy as np

from features.ranking import RowSchema, row_schema
from training.models.dcn_v2 import RankingRows

SCHEMA: RowSchema = row_schema()
HONEST, FREE = "category_share", "log_price"


def honest_rows(users: int = 120, each: int = 40, seed: int = 0) -> RankingRows:
    """Rows with about 5 % positives; only `HONEST` knows something of them."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((users * each, len(SCHEMA.columns))).astype(np.float32)
    for at, column in enumerate(SCHEMA.columns):
        if column.kind == "categorical":
            rows[:, at] = random.integers(0, min(column.size, 6), len(rows))
    chance = 1 / (1 + np.exp(3.3 - rows[:, SCHEMA.at(HONEST)]))
    labels = (random.random(len(rows)) < chance).astype(np.int8)
    return RankingRows(rows, labels, np.arange(0, len(rows) + 1, each), tuple(f"u{at}" for at in range(users)))
