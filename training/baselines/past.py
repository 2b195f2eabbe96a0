"""What a baseline may know at a moment: positive events before it and the catalogue's columns.

Shapes: N items, U users, E events.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training.baselines import recency
from training.evaluation.metrics import Targets, pad
from training.evaluation.protocol import TestSet
from training.interactions import DAY_US, Positives, decay

PLACES = 500  # a baseline's list: what a ranker would be given

# rows of users [u] → their items, best first, int64 [u, PLACES], -1 after the end
Recommend = Callable[[NDArray[np.int64]], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Past:
    """Positive events before `until_us`, and of each item price (float32 [N], NaN unknown), category and creator
    (int32 [N], -1 unknown)."""

    positives: Positives
    price: NDArray[np.float32]
    category: NDArray[np.int32]
    creator: NDArray[np.int32]

    @property
    def n_items(self) -> int:
        return len(self.price)

    @property
    def until_us(self) -> int:
        return self.positives.until_us

    @property
    def age_d(self) -> NDArray[np.float64]:
        """Days from each event to the moment, [E]."""
        return np.asarray((self.until_us - self.positives.timestamp_us) / DAY_US)

    def before(self, moment_us: int) -> "Past":
        """What was known at an earlier moment. Items keep their rows."""
        all_of = self.positives
        keep = all_of.timestamp_us < moment_us
        then = Positives(
            moment_us,
            all_of.n_users,
            all_of.user[keep],
            all_of.item[keep],
            all_of.timestamp_us[keep],
            all_of.weight[keep],
        )
        return Past(then, self.price, self.category, self.creator)

    def history(self, half_life_d: float | None = None) -> csr_matrix:
        """float32 [U, N]: the weight that a user's last event on an item has left; 1 without a half-life."""
        return history(self.positives, self.n_items, half_life_d)

    def popularity(self, half_life_d: float) -> NDArray[np.float64]:
        """Events per item, half as much every half-life, float64 [N]."""
        log = self.positives
        return recency.fit(log.item, log.timestamp_us, self.n_items, self.until_us, half_life_d)

    def new_items(self, moment_us: int, to_us: int) -> TestSet:
        """Who took up what they had not met, in [moment_us, to_us): the protocol's users and targets."""
        positives = self.positives
        earlier = positives.timestamp_us < moment_us
        inside = ~earlier & (positives.timestamp_us < to_us)
        key = positives.user.astype(np.int64) * self.n_items + positives.item
        new = inside & np.isin(positives.user, positives.user[earlier]) & ~np.isin(key, key[earlier])
        users, at = np.unique(positives.user[new], return_inverse=True)
        targets = Targets.of(at.astype(np.int64), positives.item[new].astype(np.int64), len(users))
        return TestSet(users.astype(np.int64), targets, self.n_items)


def last_events(positives: Positives, n_items: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each user and item that met, ascending: user × N + item, and the moment of the last event in microseconds."""
    pairs, at = np.unique(positives.user.astype(np.int64) * n_items + positives.item, return_inverse=True)
    last_us = np.full(len(pairs), np.iinfo(np.int64).min)
    np.maximum.at(last_us, at, positives.timestamp_us)
    return pairs, last_us


def history(positives: Positives, n_items: int, half_life_d: float | None = None) -> csr_matrix:
    """float32 [U, N]: the weight that a user's last event on an item has left; 1 without a half-life."""
    pairs, last = last_events(positives, n_items)
    weight = np.ones(len(pairs), np.float32) if half_life_d is None else decay(last, positives.until_us, half_life_d)
    return csr_matrix((weight, (pairs // n_items, pairs % n_items)), shape=(positives.n_users, n_items))


def top(scores: NDArray[np.floating[Any]], masked: NDArray[np.integer[Any]], k: int) -> NDArray[np.int64]:
    """The k best rows of one user's scores without the masked ones; ties by row."""
    scores = scores.astype(np.float64, copy=True)
    scores[masked] = -np.inf
    k = min(k, len(scores) - len(masked))
    if k <= 0:
        return np.empty(0, np.int64)
    # Every item that ties with the k-th best comes along, then a stable order decides.
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    chosen = np.flatnonzero(scores >= threshold)
    return np.asarray(chosen[np.argsort(-scores[chosen], kind="stable")[:k]])


def best(scores: NDArray[np.floating[Any]], met: csr_matrix) -> NDArray[np.int64]:
    """The first `PLACES` of each row without what the user met, -1 after the end. scores: [u, N], met: [u, N]."""
    own = [met.indices[met.indptr[row] : met.indptr[row + 1]] for row in range(met.shape[0])]
    return pad([top(row, mine, PLACES) for row, mine in zip(scores, own, strict=True)], PLACES)
