"""The evaluation protocol: a global cut in time, all items ranked, training items masked. NumPy only.

Users are rows of the training log, items are rows of the catalogue; an item that the catalogue does not have has a
number of its own at or above N, so that it is a target that nobody can hit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics import Targets


@dataclass(frozen=True, slots=True)
class TestSet:
    """users: int64 [U], rows of the training log; targets: U users. n_items: size of the catalogue."""

    users: NDArray[np.int64]
    targets: Targets
    n_items: int

    __test__ = False  # not a test case, whatever its name says to pytest

    def __len__(self) -> int:
        return len(self.users)

    def sample(self, at_most: int, seed: int) -> "TestSet":
        """All users, or so many of them, drawn by the seed, in their order."""
        if len(self) <= at_most:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self), at_most, replace=False))
        return TestSet(self.users[chosen], self.targets.take(chosen), self.n_items)


def hold_out(
    *,
    train_users: NDArray[np.integer[Any]],
    train_items: NDArray[np.integer[Any]],
    test_users: NDArray[np.integer[Any]],
    test_items: NDArray[np.integer[Any]],
    n_items: int,
) -> TestSet:
    """Who is asked, and what counts as a hit.

    train_*: positive events before the cut. test_*: positive events of the window; a user of -1 was never seen in
    training and is left out.
    """
    known = np.isin(test_users, np.unique(train_users)) & (test_users >= 0)
    users, items = test_users[known].astype(np.int64), test_items[known].astype(np.int64)
    span = 1 + max(int(items.max(initial=0)), int(train_items.max(initial=0)), n_items)
    met = np.isin(users * span + items, np.unique(train_users.astype(np.int64) * span + train_items))
    users, items = users[~met], items[~met]
    rows, positions = np.unique(users, return_inverse=True)
    return TestSet(rows, Targets.of(positions, items, len(rows)), n_items)


@dataclass(frozen=True, slots=True)
class Lists:
    """What one recommender answered to the users of a test set, in their order.

    slates: int64 [U, ≥ 10], best first, -1 padded. candidates: int64 [U, ≤ 500], in any order, the union that the slate
    was chosen from (a baseline's first 500).
    """

    slates: NDArray[np.int64]
    candidates: NDArray[np.int64]
    sources: Mapping[str, NDArray[np.int64]] | None = None
