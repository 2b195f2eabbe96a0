"""Put the features of a log, as of one moment, into an online store: what `features materialize` and quickstart do."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contracts.errors import DataError
from features.offline import items
from features.offline.log import Log, open_log
from features.offline.states import known_users, states
from features.online.base import ItemSnapshot, OnlineStore, Stamped, UserState
from features.registry import REGISTRY
from features.resolve import LAST_10

_BATCH = 5_000  # users a transaction
_AT_ONCE = 50_000  # users in memory: about 0.3 GB


@dataclass(frozen=True, slots=True)
class Materialized:
    as_of_us: int
    users: int
    items: int
    item_snapshot: str
    feature_hash: str


def materialize(
    folder: Path,
    store: OnlineStore,
    as_of_us: int | None = None,
    *,
    user_embeddings: Mapping[str, NDArray[np.float32]] | None = None,
    item_embeddings: NDArray[np.float32] | None = None,
    item_ids: Sequence[str] | None = None,
    user_ids: Sequence[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Materialized:
    """Write user features, the last interactions and an item snapshot as of `as_of_us`.

    The stamp of every value is `as_of_us`: whoever names a moment says that the log is whole up to it. A second run
    with an older moment changes no user (older stamps never overwrite newer ones).

    Args:
        as_of_us: default: right after the log's last event, so that it counts.
        item_embeddings: float32 [N, 128] in the order of `item_ids` (default: items.parquet).
        user_ids: only these; default: everybody with a past.
        progress: called with users done and users in all.

    Raises:
        DataError: no data set, an empty log, or embeddings that do not fit the items.
        Unreachable: the store is away.
    """
    with open_log(folder) as log:
        moment = log.span_us()[1] + 1 if as_of_us is None else as_of_us
        snapshot = item_snapshot(log, moment, item_ids=item_ids, embeddings=item_embeddings)
        ids = known_users(log, moment) if user_ids is None else list(user_ids)
        for at in range(0, len(ids), _AT_ONCE):
            found = states(log, ids[at : at + _AT_ONCE], moment, embeddings=user_embeddings)
            rows = iter(found.items())
            while batch := dict(islice(rows, _BATCH)):
                store.write_users({user_id: stored_features(state, moment) for user_id, state in batch.items()})
            progress(at + len(found), len(ids))
    store.write_item_snapshot(snapshot)
    return Materialized(moment, len(ids), len(snapshot.item_ids), snapshot.version, REGISTRY.hash)


def stored_features(state: UserState, as_of_us: int) -> dict[str, Stamped]:
    """A state as `write_users` takes it. An empty history is written too: it says that nothing happened by then."""
    return {**state.batch, LAST_10: Stamped(state.last, as_of_us)}


def item_snapshot(
    log: Log,
    as_of_us: int,
    *,
    item_ids: Sequence[str] | None = None,
    embeddings: NDArray[np.float32] | None = None,
) -> ItemSnapshot:
    """Item features as of a moment. Features that the log cannot measure (no impressions, …) are left out.

    Raises:
        DataError: the embeddings do not fit the items.
    """
    ids = list(log.item_ids() if item_ids is None else item_ids)
    events = items.read_events(log, ids, as_of_us)
    computed = items.compute(events, [as_of_us])
    columns = {name: computed[name][0] for name in items.measurable(events)}
    if embeddings is not None:
        if embeddings.shape != (len(ids), 128):
            raise DataError(f"item embeddings have shape {embeddings.shape}, the catalogue {len(ids)} items × 128")
        columns["item_embedding_128d"] = embeddings.astype(np.float32, copy=False)
    digest = hashlib.sha256(f"{as_of_us} {REGISTRY.hash}".encode())
    for name in sorted(columns):
        digest.update(name.encode() + np.ascontiguousarray(columns[name]).tobytes())
    return ItemSnapshot(f"{as_of_us}-{digest.hexdigest()[:12]}", ids, columns, dict.fromkeys(columns, as_of_us))
