"""Embeddings of what is served: are they still those that the version was trained with, and is their crowd the same?

`embedding.items`: the same items' vectors in the Bento that served and in training's reference, pair by pair.
`embedding.shown`, `embedding.users`: vectors of the items that are shown and of the users who come, by training's
vectors, so that what is told is a change of the crowd and not of the model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contracts.errors import StreamRecError
from monitoring.drift.base import Engine, Result, inconclusive
from monitoring.drift.registry import DETECTORS
from registry.bento_store import stored_bento

Vectors = tuple[NDArray[Any], NDArray[np.float32]]  # ids [N], float32 [N, D]


def embeddings(
    reference: pa.Table,
    current: pa.Table,
    trained: Mapping[str, NDArray[Any]],
    served: Vectors | str,
    *,
    engine: Engine,
    seed: int = 0,
) -> dict[str, Result]:
    """
    Args:
        reference, current: rows of one a user, with `item_id` and `user_id`. trained: as `Reference.embeddings`.
        served: of the Bento, or why they are not known.
    """
    if not len(trained.get("item_ids", ())):
        why = "the reference has no embeddings: its training had no two-tower model"
        return {"embedding.items": inconclusive("paired_cosine", why, weighs=False)}
    found = {}
    if isinstance(served, str):
        found["embedding.items"] = inconclusive("paired_cosine", served, weighs=False)
    else:
        sides: list[dict[str, NDArray[Any]]] = [
            {"keys": trained["item_ids"], "vectors": trained["items"]},
            {"keys": served[0], "vectors": served[1]},
        ]
        found["embedding.items"] = DETECTORS["paired_cosine"](*sides, engine=engine, seed=seed)
    for check, column, ids, vectors in (
        ("embedding.shown", "item_id", "item_ids", "items"),
        ("embedding.users", "user_id", "user_ids", "users"),
    ):
        if not len(trained.get(ids, ())):
            continue
        clouds = [{"vectors": _of(table, column, trained[ids], trained[vectors])} for table in (reference, current)]
        result = DETECTORS["mmd"](*clouds, engine=engine, seed=seed)
        # Of users training keeps a sample: that few of those who came are in it is no gap.
        found[check] = result if result.drift != "inconclusive" else inconclusive("mmd", result.why, weighs=False)
    return found


def served_vectors(home: Path, bento: str) -> Vectors | str:
    """Those in the Bento, or why they cannot be had."""
    try:
        folder = stored_bento(bento, home).models["retrieval"][1]
        with pa.memory_map(str(folder / "items.arrow")) as source:
            ids = pa.ipc.open_file(source).read_all()["item_id"].to_pylist()
        vectors = np.load(folder / "item_embeddings.npy", mmap_mode="r", allow_pickle=False)
    except (StreamRecError, OSError, KeyError, ValueError, pa.ArrowException) as error:
        return f"the embeddings of {bento or 'the Bento'} cannot be read: {error}"
    return np.array(ids), np.asarray(vectors, np.float32)


def _of(table: pa.Table, column: str, ids: NDArray[Any], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of the rows whose id is known, float32 [n, D]."""
    if column not in table.column_names:
        return np.empty((0, vectors.shape[1]), np.float32)
    place = {name: at for at, name in enumerate(ids.tolist())}
    at = [place[name] for name in table[column].to_pylist() if name in place]
    return np.asarray(vectors[at], np.float32)
