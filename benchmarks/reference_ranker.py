"""A DCN-V2 of any size without training: seeded weights over the funnel's own rows, scores well spread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.models import Models
from bentos.recommender.types import Query
from contracts.serving import HISTORY_LENGTH
from features.online.base import Interaction, Stamped, UserState
from features.ranking import RowSchema
from training.models.dcn_weights import DcnWeights

HOUR_US = 3_600_000_000
CLIP = 6.0
LOGIT_MEAN, LOGIT_DEVIATION = -2.0, 1.5


@dataclass(frozen=True, slots=True)
class RankerShape:
    """embeddings: widths by categorical column. users: whose rows it is standardised, calibrated and checked on."""

    cross_layers: int
    hidden: Sequence[int]
    embeddings: Mapping[str, int]
    users: int = 8


SMALL = RankerShape(2, (32,), {"category": 4, "creator": 4, "country": 2, "device": 2})
# 50 dense columns + 270 = 320 wide, the size that the reference workload names.
REFERENCE = RankerShape(3, (512, 256, 128), {"category": 68, "creator": 68, "country": 67, "device": 67}, users=64)


def reference_dcn(shape: RankerShape, schema: RowSchema, rows: NDArray[np.float32], seed: int) -> DcnWeights:
    """Layers as wide as `shape`, standardised by `rows` [R, F]; logits of `rows` have mean -2 and deviation 1.5.

    Cross layers and deep tower bear equally on the score.
    """
    rng = np.random.default_rng(seed)

    def normal(*size: int, deviation: float) -> NDArray[np.float32]:
        return (deviation * rng.standard_normal(size)).astype(np.float32)

    dense = sum(column.kind == "dense" for column in schema.columns)
    mean = rows[:, :dense].mean(axis=0, dtype=np.float64)
    deviation = rows[:, :dense].std(axis=0, dtype=np.float64)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6)
    tables = [
        normal(column.size, shape.embeddings[column.name], deviation=0.3)
        for column in schema.columns
        if column.kind == "categorical"
    ]
    width = dense + sum(table.shape[1] for table in tables)
    cross = [
        (normal(width, width, deviation=1 / np.sqrt(width)), normal(width, deviation=0.1))
        for _ in range(shape.cross_layers)
    ]
    deep = [
        (normal(a, b, deviation=np.sqrt(2 / a)), normal(b, deviation=0.1)) for a, b in pairwise((width, *shape.hidden))
    ]
    halves = [normal(width, deviation=1.0), normal(shape.hidden[-1], deviation=1.0)]
    nothing = np.zeros(width + shape.hidden[-1], np.float32)
    weights = DcnWeights(
        mean.astype(np.float32), scale.astype(np.float32), CLIP, tables, cross, deep, nothing, out_bias=0.0
    )
    out = np.concatenate(halves)
    for half in (slice(0, width), slice(width, None)):
        alone = nothing.copy()
        alone[half] = out[half]
        out[half] /= replace(weights, out=alone).logits(rows).std() + 1e-6
    weights = replace(weights, out=out)
    logits = weights.logits(rows).astype(np.float64)
    slope = LOGIT_DEVIATION / (float(logits.std()) + 1e-6)
    return replace(weights, slope=slope, offset=LOGIT_MEAN - slope * float(logits.mean()))


def sample_rows(retrieval: Path, users: int, seed: int) -> NDArray[np.float32]:
    """float32 [R, F]: what the funnel over this retrieval bundle would rank for `users` users with made-up pasts."""
    models = load_models({"retrieval": retrieval})
    return rows_of_users(models, Funnel(models, None), users, seed)


def rows_of_users(models: Models, funnel: Funnel, users: int, seed: int) -> NDArray[np.float32]:
    """Candidates of one user after another, float32 [R, F]."""
    rng = np.random.default_rng(seed)
    parts = []
    for number in range(users):
        user_id = f"u{number}"
        context = {
            "country": str(rng.choice(["", "DE", "FR", "GB"])),
            "device": str(rng.choice(["", "ios", "android", "web"])),
        }
        query = Query(f"r{number}", user_id, 20, models.now_us(), np.inf, context)
        user, candidates = funnel.candidates(query, past(rng, user_id, models))
        parts.append(funnel.rows(query, user, candidates))
    return np.concatenate(parts)


def past(rng: np.random.Generator, user_id: str, models: Models) -> UserState:
    """A user's features and last interactions, newest first."""
    now_us, catalogue = models.now_us(), models.catalogue
    items = rng.integers(0, len(catalogue), int(rng.integers(0, HISTORY_LENGTH + 1)))
    hours = np.sort(rng.exponential(10, len(items)))
    last = tuple(
        Interaction(catalogue.item_ids[item], "click", now_us - int(age * HOUR_US))
        for item, age in zip(items, hours, strict=True)
    )
    liked = rng.choice(len(catalogue.categories), min(3, len(catalogue.categories)), replace=False)
    shares = rng.dirichlet(np.ones(len(liked)))
    positives = float(rng.poisson(20))
    features = {
        "user_avg_session_length_min": float(rng.gamma(2, 6)),
        "user_positives_30d": positives,
        "user_positives_total": positives + float(rng.poisson(60)),
        "user_active_days_30d": float(rng.integers(0, 31)),
        "user_tenure_days": float(rng.gamma(2, 100)),
        "user_category_preferences": {
            catalogue.categories[at]: float(share) for at, share in zip(liked, shares, strict=True)
        },
    }
    stamped = {name: Stamped(value, now_us - HOUR_US) for name, value in features.items()}
    return UserState(user_id, stamped, last, watermark_us=now_us)
