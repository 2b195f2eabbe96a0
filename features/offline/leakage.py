"""Does a feature look into its own future? Hide the future and compute it again: an honest value does not change."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.definitions import Entity
from features.offline import items, users
from features.offline.log import Log, open_log
from features.resolve import LAST_10

# (log, ids, moments) → the features of each row, by name.
Compute = Callable[[Log, Sequence[str], Sequence[int]], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Leak:
    """A value that is not what the past alone gives."""

    feature: str
    entity_id: str
    timestamp_us: int
    claimed: Any
    honest: Any


def check_point_in_time(
    folder: Path,
    entity: Entity,
    rows: Sequence[tuple[str, int]],
    values: Sequence[Mapping[str, Any]],
    *,
    sample: int = 50,
    seed: int = 0,
    compute: Compute | None = None,
) -> list[Leak]:
    """Compare claimed values with those computed from a log that ends right before each row's moment.

    Args:
        rows: (id, moment in µs), one for each of `values`.
        values: feature name → value, as training or a backfill claims them. A name that `compute` does not know is a
            leak as well: nobody can say where it came from.
        sample: rows tried, drawn with `seed`; the cost is one scan of the log for each.
        compute: default: the registry's own computation, so that values from anywhere can be held against it. Give
            another to test that one for reaching into the future.

    Raises:
        DataError: the folder is no data set.
    """
    chosen = np.random.default_rng(seed).permutation(len(rows))[:sample]
    # The registry's features of a user or an item need nobody else's events; of others' computations nobody knows.
    mine = None if compute else sorted({rows[at][0] for at in chosen.tolist()})
    do = compute or (user_features if entity == "user" else item_features)
    leaks = []
    users_only, items_only = (mine, None) if entity == "user" else (None, mine)
    with open_log(folder, user_ids=users_only, item_ids=items_only, threads=1) as log:
        for at in sorted(chosen.tolist()):
            entity_id, moment = rows[at]
            log.hide_from(moment)
            honest = do(log, [entity_id], [moment])[0]
            leaks += [
                Leak(name, entity_id, moment, claimed, honest.get(name))
                for name, claimed in values[at].items()
                if name not in honest or not same(claimed, honest[name])
            ]
    return leaks


def user_features(log: Log, ids: Sequence[str], moments_us: Sequence[int]) -> list[dict[str, Any]]:
    """All user features but embeddings, the last 10 interactions among them."""
    batch = users.batch_features(log, ids, moments_us)
    last = users.last_interactions(log, ids, moments_us)
    return [{**features, LAST_10: recent} for features, recent in zip(batch, last, strict=True)]


def item_features(log: Log, ids: Sequence[str], moments_us: Sequence[int]) -> list[dict[str, Any]]:
    """All item features but embeddings."""
    order = sorted(set(ids))
    moments = sorted(set(moments_us))
    computed = items.compute(items.read_events(log, order, moments[-1]), moments)
    row_of, moment_of = ({key: i for i, key in enumerate(keys)} for keys in (order, moments))
    return [
        {name: float(columns[moment_of[t]][row_of[i]]) for name, columns in computed.items()}
        for i, t in zip(ids, moments_us, strict=True)
    ]


def same(one: Any, other: Any, *, tolerance: float = 1e-5) -> bool:
    """Equal up to the rounding of float32 and the order of a sum."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[k], other[k], tolerance=tolerance) for k in one)
    if isinstance(one, int | float | np.number) and isinstance(other, int | float | np.number):
        return math.isclose(float(one), float(other), rel_tol=tolerance, abs_tol=1e-9)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.shape(one) == np.shape(other) and bool(np.allclose(one, other, rtol=tolerance))
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return tuple(one) == tuple(other)
    return bool(one == other)
