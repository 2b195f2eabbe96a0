"""Two-tower retrieval: the user's vector from attributes and the session, then its nearest items."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import RetrievalModels
from bentos.recommender.types import Query, SourceResult, User
from contracts.errors import ArtifactError
from features.two_tower_inputs import user_inputs


class TwoTower:
    name = "two_tower"
    needs_session = True

    def __init__(self, models: RetrievalModels) -> None:
        if models.two_tower is None or models.nearest is None:
            raise ArtifactError("two-tower model or index not loaded")
        self._session = models.two_tower
        self._nearest = models.nearest
        self._attributes = models.attributes

    def retrieve(self, query: Query, user: User, blocked: NDArray[np.bool_], quota: int) -> SourceResult:
        """Scores are cosine similarities."""
        attributes = self._attributes.row(user.row, query.context)[None, :]
        (vectors,) = self._session.run(None, user_inputs([user.history], [user.history_age_h], attributes))
        if not np.isfinite(vectors).all():
            raise ArithmeticError("the user's vector is not finite")
        return replace(self._nearest.search(vectors[0], blocked, quota), vector=vectors[0])
