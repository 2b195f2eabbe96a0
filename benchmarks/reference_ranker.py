"""A DCN-V2 of any size without training: seeded weights over the funnel's own rows, scores well spread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference_names import NOW_US, user_id
from benchmarks.reference_state import item_snapshot, user_features
from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.types import Query
from features.online.base import UserState
from features.ranking import RowSchema
from features.resolve import LAST_10
from training.models.dcn_weights import DcnWeights

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
# 72 dense columns + 248 = 320 wide, the size that the reference workload names.
REFERENCE = RankerShape(3, (512, 256, 128), {"category": 62, "creator": 62, "country": 62, "device": 62}, users=160)


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
        normal(column.size, shape.embeddings[column.name], deviation=0.1)
        for column in schema.columns
        if column.kind == "categorical"
    ]
    width = dense + sum(table.shape[1] for table in tables)
    cross = [
        (normal(width, width, deviation=_initial(width)), normal(width, deviation=_initial(width)))
        for _ in range(shape.cross_layers)
    ]
    deep = [
        (normal(a, b, deviation=_initial(a)), normal(b, deviation=_initial(a)))
        for a, b in pairwise((width, *shape.hidden))
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


def _initial(inputs: int) -> float:
    """The deviation of weights and biases that PyTorch's `nn.Linear` begins with."""
    return 1 / float(np.sqrt(3 * inputs))


def sample_rows(retrieval: Path, users: int, seed: int) -> NDArray[np.float32]:
    """float32 [R, F]: what the funnel over this retrieval bundle would rank for users of `reference_state`, one after
    another.
    """
    models = load_models({"retrieval": retrieval})
    catalogue, funnel = models.catalogue, Funnel(models, None)
    rng = np.random.default_rng(seed)
    funnel.set_items(item_snapshot(rng, len(catalogue)))
    parts = []
    for number in range(users):
        context = {
            "country": str(rng.choice(["", "DE", "FR", "GB"])),
            "device": str(rng.choice(["", "ios", "android", "web"])),
        }
        features = user_features(rng, len(catalogue.categories), len(catalogue))
        state = UserState(user_id(number), features, features[LAST_10].value, watermark_us=NOW_US)
        query = Query(str(number), user_id(number), 20, NOW_US, np.inf, context)
        user, candidates = funnel.candidates(query, state)
        parts.append(funnel.rows(query, user, candidates))
    return np.concatenate(parts)
