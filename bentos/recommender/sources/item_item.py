"""What goes with everything that the user took up, the newest counting most: linear item-item weights."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import RetrievalModels
from bentos.recommender.top import top
from bentos.recommender.types import Query, SourceResult, User
from contracts.errors import ArtifactError
from features.item_item import agreement, latest


class ItemItemSource:
    name = "item_item"
    needs_session = True

    def __init__(self, models: RetrievalModels) -> None:
        if models.item_item is None:
            raise ArtifactError("item-item weights not loaded")
        self._weights = models.item_item
        self._half_life_d = models.item_item_half_life_d
        self._known = self._weights.n_items

    def retrieve(self, query: Query, user: User, blocked: NDArray[np.bool_], quota: int) -> SourceResult:
        """Only what agrees: an item that nothing of the history speaks for is not brought."""
        met, at_us = latest(user.met, user.met_at_us, self._known)
        scores = agreement(self._weights, met, at_us, query.now_us, [self._half_life_d])[0]
        scores[blocked[: self._known] | (scores <= 0)] = -np.inf
        best = top(scores, quota)
        return SourceResult(best, scores[best])
