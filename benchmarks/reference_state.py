"""What the online store of the reference world holds, with drawn values: of users, and of all items.

The world's ranker is standardised and calibrated on rows made from the same, as a trained one is.
"""

import numpy as np

from benchmarks.reference_names import HOUR_US, NOW_US, item_id
from features.online.base import Interaction, ItemSnapshot, Stamped
from features.registry import REGISTRY
from features.resolve import LAST_10


def user_features(rng: np.random.Generator, categories: int, items: int) -> dict[str, Stamped]:
    vector = rng.standard_normal(128).astype(np.float32)
    preferred = rng.choice(categories, min(6, categories), replace=False)
    shares = rng.dirichlet(np.ones(len(preferred)))
    values = {
        "user_embedding_128d": vector / np.linalg.norm(vector),
        "user_avg_session_length_min": float(rng.gamma(4, 3)),
        "user_category_preferences": {f"category {c}": float(s) for c, s in zip(preferred, shares, strict=True)},
        "user_positives_30d": float(rng.poisson(6)),
        "user_positives_total": float(rng.poisson(60)),
        "user_active_days_30d": float(rng.integers(1, 20)),
        "user_tenure_days": float(rng.integers(30, 900)),
        LAST_10: tuple(interactions(rng, items, 10, newest_h=1.0)),
    }
    return {name: Stamped(value, NOW_US) for name, value in values.items()}


def interactions(rng: np.random.Generator, items: int, n: int, newest_h: float) -> list[Interaction]:
    """Newest first."""
    ages = np.cumsum(rng.exponential(2.0, n)) + newest_h
    events = rng.choice(["click", "purchase", "view"], n, p=[0.6, 0.1, 0.3])
    return [
        Interaction(item_id(int(i)), str(e), NOW_US - int(age * HOUR_US))
        for i, e, age in zip(rng.integers(0, items, n), events, ages, strict=True)
    ]


def item_snapshot(rng: np.random.Generator, items: int) -> ItemSnapshot:
    """All numbers of the registry; vectors are the bundle's."""
    columns = {}
    for definition in REGISTRY.of("item"):
        if definition.dtype != "float" or definition.kind == "on_demand":
            continue
        rate = definition.name.endswith(("_ctr_7d", "_rate_7d"))
        drawn = rng.beta(2, 50, items) if rate else rng.zipf(1.6, items).clip(max=100_000) - 1
        columns[definition.name] = drawn.astype(np.float32)
    return ItemSnapshot("bench", [item_id(i) for i in range(items)], columns, dict.fromkeys(columns, NOW_US))
