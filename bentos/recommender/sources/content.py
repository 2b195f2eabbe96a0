"""Content affinity: the user's posterior share of each category times an item's standing within its category."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import RetrievalModels
from bentos.recommender.shelves import Shelves
from bentos.recommender.types import Query, SourceResult, User
from contracts.catalogue import Catalogue
from contracts.errors import ArtifactError


class Content:
    name = "content"
    needs_session = False

    def __init__(self, models: RetrievalModels, catalogue: Catalogue) -> None:
        if models.content_users is None or models.content_prior is None or models.content_items is None:
            raise ArtifactError("content affinities not loaded")
        self._users = models.content_users
        self._prior = models.content_prior
        # Of categories that came after the models nobody's share is known: the least that any has.
        new = len(catalogue.categories) - len(self._prior)
        self._unknown = np.full(max(new, 0), self._prior.min(initial=1.0), np.float32)
        self._shelves = Shelves(catalogue.category, models.content_items)

    def retrieve(self, query: Query, user: User, blocked: NDArray[np.bool_], quota: int) -> SourceResult:
        """A new user has the prior."""
        share = self._users[user.row] if user.row >= 0 else self._prior
        if len(self._unknown):
            share = np.concatenate([share, self._unknown])
        return SourceResult(*self._shelves.best(share, blocked, quota))
