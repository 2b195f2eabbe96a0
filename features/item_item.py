"""Agreement of items with what a user took up: weights between items, applied to a history that fades.

One definition for the source that retrieves by it and for the columns that a ranker reads of it. N items, M items of
one user's history, H half-lives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAY_US = 86_400_000_000
LATEST = 300  # of a user's history, newest first, are read: what one request costs is bounded


@dataclass(frozen=True, slots=True)
class ItemItem:
    """Sparse weights [N, N] in CSR: what having taken up the item of a row says for others.

    indptr: int64 [N + 1]; items: int32; weights: float32, of either sign.
    """

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]
    weights: NDArray[np.float32]

    @property
    def n_items(self) -> int:
        return len(self.indptr) - 1


def latest(
    met: NDArray[np.int32], met_at_us: NDArray[np.int64], n_items: int, at_most: int = LATEST
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The newest of a history that the weights know, and when each was last taken up."""
    known = met < n_items
    if not known.all():
        met, met_at_us = met[known], met_at_us[known]
    if len(met) <= at_most:
        return met, met_at_us
    newest = np.argsort(-met_at_us, kind="stable")[:at_most]
    return met[newest], met_at_us[newest]


def agreement(
    weights: ItemItem,
    met: NDArray[np.int32],
    met_at_us: NDArray[np.int64],
    now_us: int,
    half_lives_d: Sequence[float | None],
    of: NDArray[np.int32] | None = None,
) -> NDArray[np.float32]:
    """float32 [H, N]: for each half-life (in days; None: nothing fades) the sum over the history of faded weight times
    item-item weight. met: int32 [M] item rows below N; met_at_us: int64 [M], moments in microseconds. of: int32 [K],
    distinct items to ask about, of any number: float32 [H, K], for a fraction of the time; what came after the weights
    agrees with nothing.
    """
    n = weights.n_items
    out = np.zeros((len(half_lives_d), n if of is None else len(of)), np.float32)
    if not len(met):
        return out
    starts, ends = weights.indptr.take(met), weights.indptr.take(met + 1)
    counts = ends - starts
    owner = np.repeat(np.arange(len(met)), counts)
    at = np.arange(len(owner)) + (starts - np.cumsum(counts) + counts).take(owner)
    items = weights.items.take(at)
    if of is not None:
        place = np.full(n, -1, np.int32)
        known = of < n
        place[of[known]] = np.flatnonzero(known)
        items = place.take(items)
        asked = np.flatnonzero(items >= 0)
        items, at, owner = items.take(asked), at.take(asked), owner.take(asked)
    weight = weights.weights.take(at)
    age_d = np.maximum(now_us - met_at_us, 0) / DAY_US
    for row, half_life_d in enumerate(half_lives_d):
        faded = weight if half_life_d is None else weight * np.exp2(-age_d / half_life_d).astype(np.float32).take(owner)
        out[row] = np.bincount(items, faded, minlength=out.shape[1])
    return out
