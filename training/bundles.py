"""Writes the ranking bundle and the fallback bundle: the light ranker, and lists for when all else fails."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.catalogue import Catalogue
from features.ranking import RowSchema
from registry.artifacts import Bundle, seal
from training.baselines import recency
from training.interactions import Log
from training.models.fitted import Fitted
from training.models.logistic import Logistic

LIST_LENGTH = 1000
SLATE_LENGTH = 100
COUNTRY = "country"
HALF_LIFE_D = 7.0


def popular(log: Log, catalogue: Catalogue, events: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
    """Item rows by recency-weighted popularity, best first, flagged ones left out; items without an event come last."""
    chosen = log.weight > 0
    if events is not None:
        chosen &= events
    score = recency.fit(log.item[chosen], log.timestamp_us[chosen], len(catalogue), log.until_us, HALF_LIFE_D)
    order = np.argsort(-score, kind="stable").astype(np.int32)
    if events is not None:
        order = order[score[order] > 0]
    return order[~catalogue.is_flagged[order]][:LIST_LENGTH]


def write_fallback(
    out: Path, logistic: Logistic, schema: RowSchema, log: Log, catalogue: Catalogue, **sealed: Any
) -> Bundle:
    """Write the bundle `out`, which must not exist. `sealed`: the manifest's other fields."""
    part = _fresh(out)
    logistic.save(part / "logistic.npz")
    (part / "schema.json").write_bytes(msgspec.json.encode(schema))
    overall = popular(log, catalogue)
    np.save(part / "popularity.npy", overall)
    by_country = {}
    if COUNTRY in log.attribute_columns:
        codes = log.attributes[:, log.attribute_columns.index(COUNTRY)][log.user]
        for code, country in enumerate(log.attribute_values[COUNTRY]):
            if country and (codes == code).any():
                by_country[country] = popular(log, catalogue, codes == code).tolist()
    (part / "popularity_by_country.json").write_text(json.dumps(by_country))
    slate = overall[:SLATE_LENGTH]
    document = {
        "item_ids": [catalogue.item_ids[row] for row in slate],
        "scores": [round(1 - place / max(len(slate), 1), 6) for place in range(len(slate))],
    }
    (part / "slate.json").write_text(json.dumps(document))
    return _publish(part, out, kind="fallback", **sealed)


def write_ranking(
    out: Path, ranker: Fitted, schema: RowSchema, rows: NDArray[np.float32], **sealed: Any
) -> tuple[Bundle, float]:
    """Write the ranking bundle `out`; also the largest difference between its file's scores and the model's.

    rows: float32 [R, F], some of those that the ranker learned from, one user after another.

    Raises:
        ArtifactError: a graph gives other scores than the model that it was made from.
    """
    part = _fresh(out)
    written = ranker.write(part, rows)
    (part / "schema.json").write_bytes(msgspec.json.encode(schema))
    params = {**sealed.pop("params", {}), "ranker": ranker.name, **written.params}
    return _publish(part, out, kind="ranking", params=params, **sealed), written.difference


def _fresh(out: Path) -> Path:
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def _publish(part: Path, out: Path, **sealed: Any) -> Bundle:
    bundle = seal(part, **sealed)
    part.rename(out)
    return Bundle(out, bundle.manifest)
