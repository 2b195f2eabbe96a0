"""Writes the reference of a model version (`registry/reference.py` says what is in it)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bentos.recommender.assemble import load_models
from features.frame import MADE_FROM, WORDS, default_flag
from features.ranking import row_schema
from features.registry import REGISTRY
from features.summaries import Summary, Tally
from registry.artifacts import Bundle
from registry.reference import EMBEDDINGS, IMPORTANCE, ROWS, SCHEMA, STATISTICS, digest_of
from training.embeddings import of_users

SLATE_ROWS = 60_000
CANDIDATE_ROWS = 40_000
EMBEDDED_ITEMS = 20_000
EMBEDDED_USERS = 2_000


@dataclass(frozen=True, slots=True)
class Written:
    """The folder, and what lineage and evidence say of it. digest: SHA-256 over the four files."""

    folder: Path
    digest: str
    rows: int
    slate_rows: int


def write_reference(
    folder: Path,
    slates: pa.Table | None,
    candidates: Sequence[pa.Table],
    *,
    importance: Mapping[str, float],
    read_by_ranker: Mapping[str, bool],
    retrieval: Bundle,
    data: Path,
    data_digest: str,
    seed: int,
) -> Written:
    """Write `folder`, which must not exist.

    read_by_ranker: column → whether the ranker reads it at all (a column that was constant is taken out of it).
    """
    folder.mkdir(parents=True)
    schema = row_schema()
    tables = [table for table in (slates, *candidates) if table is not None]
    rows = pa.concat_tables(tables, promote_options="default") if tables else pa.table({})
    pq.write_table(rows, folder / ROWS, compression="zstd")
    compared = slates if slates is not None else (rows if tables else None)
    statistics = {
        "schema": SCHEMA,
        "origin": "slate" if slates is not None else "candidate",
        "rows": 0 if compared is None else compared.num_rows,
        "users": 0 if compared is None else pc.count_distinct(compared["user_id"]).as_py(),
        "feature_hash": REGISTRY.hash,
        "row_signature": schema.signature,
        "snapshot": data_digest,
        "trained_until_us": retrieval.manifest.trained_until_us,
        "seed": seed,
        "features": {
            name: {
                **({} if compared is None else _summary(compared, name, seed).model_dump()),
                "read_by_ranker": read_by_ranker.get(name, True),
            }
            for name in schema.names
        },
    }
    (folder / STATISTICS).write_text(json.dumps(statistics, indent=1))
    (folder / IMPORTANCE).write_text(json.dumps(dict(importance), indent=1))
    np.savez(folder / EMBEDDINGS, **_embeddings(retrieval, data, seed))
    digest = digest_of(folder)
    return Written(folder, digest, rows.num_rows, 0 if slates is None else slates.num_rows)


def _summary(table: pa.Table, name: str, seed: int) -> Summary:
    tally = Tally("word" if name in WORDS else "number", np.random.default_rng(seed))
    flags = default_flag(MADE_FROM[name]) if name in MADE_FROM else None
    tally.add(table[name], table[flags] if flags else None)
    return tally.summary()


def _embeddings(retrieval: Bundle, data: Path, seed: int) -> dict[str, NDArray[np.generic]]:
    """Of the same items and users whatever the model: the draw is by the seed over sorted ids."""
    models = load_models({"retrieval": retrieval.folder, "ranking": None, "fallback": None}, parts=("sources",))
    random = np.random.default_rng(seed)
    loaded = models.retrieval
    if loaded is None:
        return {}
    chosen = np.sort(_draw(random, len(models.catalogue), EMBEDDED_ITEMS))
    ids = [models.catalogue.item_ids[at] for at in chosen.tolist()]
    some = loaded.users.ids_of(np.sort(_draw(random, len(loaded.users), EMBEDDED_USERS)))
    users = of_users(models, data, retrieval.manifest.trained_until_us, some)
    return {
        "item_ids": np.array(ids),
        "items": loaded.embeddings[chosen],
        "user_ids": np.array(list(users)),
        "users": np.array(list(users.values()), np.float32),
    }


def _draw(random: np.random.Generator, n: int, at_most: int) -> NDArray[np.int64]:
    return random.permutation(n)[:at_most]
