"""Content affinity: the user's posterior share of each category times an item's standing within its category."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import RetrievalModels
from bentos.recommender.top import top
from bentos.recommender.types import Query, SourceResult, User
from contracts.catalogue import Catalogue
from contracts.errors import ArtifactError

DEPTH = 500  # of each category


class Content:
    name = "content"
    needs_session = False

    def __init__(self, models: RetrievalModels, catalogue: Catalogue) -> None:
        if models.content_users is None or models.content_prior is None or models.content_items is None:
            raise ArtifactError("content affinities not loaded")
        self._users = models.content_users
        self._prior = models.content_prior
        self._items = models.content_items
        self._category = catalogue.category
        self._pool = best_of_each(self._category, self._items, DEPTH)
        self._pool_category = self._category[self._pool]
        self._pool_items = self._items[self._pool]

    def retrieve(self, query: Query, user: User, blocked: NDArray[np.bool_], quota: int) -> SourceResult:
        """A new user has the prior.

        Within a category the order is the same for everyone, so that the first `DEPTH` of each are enough, unless so
        many of them are blocked that a category could run out.
        """
        share = self._users[user.row] if user.row >= 0 else self._prior
        out = blocked[self._pool]
        if quota + np.bincount(self._pool_category[out], minlength=1).max() <= DEPTH:
            scores = share[self._pool_category] * self._pool_items
            scores[out] = -np.inf
            best = top(scores, quota)
            return SourceResult(self._pool[best], scores[best])
        scores = share[self._category] * self._items
        scores[blocked] = -np.inf
        best = top(scores, quota)
        return SourceResult(best, scores[best])


def best_of_each(category: NDArray[np.int32], standing: NDArray[np.float32], n: int) -> NDArray[np.int32]:
    """Item rows, ascending: the n best by standing in each category, ties by row."""
    order = np.lexsort((-standing, category))
    starts = np.searchsorted(category[order], category[order])
    return np.sort(order[np.arange(len(order)) - starts < n]).astype(np.int32)
