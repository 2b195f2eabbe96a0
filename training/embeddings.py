"""The embeddings of a trained retrieval model as features: `user_embedding_128d` and `item_embedding_128d`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.assemble import load_models
from bentos.recommender.hydrate import Hydrate
from bentos.recommender.models import Models
from bentos.recommender.sources.two_tower import TwoTower
from bentos.recommender.types import Query
from contracts.errors import ArtifactError
from contracts.serving import EMBEDDING_DIM
from features.offline.states import user_states_as_of
from training.data import read

USERS_AT_ONCE = 2_000


def of_users(
    models: Models, data: Path, as_of_us: int, user_ids: Sequence[str] | None = None
) -> dict[str, NDArray[np.float32]]:
    """User → float32 [D], unit length, for `user_ids`, else for everybody with a past before `as_of_us`.

    About 0.5 GB a million users. Raises ArtifactError where the two-tower model is not there.
    """
    if models.retrieval is None:
        raise ArtifactError(models.problems.get("retrieval", "no retrieval model"))
    tower, hydrate = TwoTower(models.retrieval), Hydrate(models)
    states = user_states_as_of(data, user_ids, as_of_us)
    ids = list(states)
    found: dict[str, NDArray[np.float32]] = {}
    for at in range(0, len(ids), USERS_AT_ONCE):
        chunk = ids[at : at + USERS_AT_ONCE]
        queries = [Query("", user_id, 1, as_of_us, math.inf) for user_id in chunk]
        users = [hydrate.resolve(q, hydrate.known(q), states[q.user_id]) for q in queries]
        found |= zip(chunk, tower.embed(users, [q.context for q in queries]), strict=True)
    return found


def of_items(models: Models, item_ids: Sequence[str]) -> NDArray[np.float32]:
    """float32 [len(item_ids), D], NaN for an item that the model does not know."""
    if models.retrieval is None:
        raise ArtifactError(models.problems.get("retrieval", "no retrieval model"))
    rows = models.index.lookup_many(list(item_ids))
    vectors = np.full((len(rows), EMBEDDING_DIM), np.nan, np.float32)
    vectors[rows >= 0] = models.retrieval.embeddings[rows[rows >= 0]]
    return vectors


def as_features(
    retrieval: Path, data: Path, as_of_us: int
) -> tuple[Mapping[str, NDArray[np.float32]], NDArray[np.float32]]:
    """Both, from a retrieval bundle; the items in the order of the data set's catalogue."""
    models = load_models({"retrieval": retrieval, "ranking": None, "fallback": None}, parts=("sources",))
    ids = read.items(data)["item_id"].to_pylist()
    return of_users(models, data, as_of_us), of_items(models, ids)
