"""Graph collaborative filtering (LightGCN, He et al. 2020): inner products with the propagated vectors."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import RetrievalModels
from bentos.recommender.types import Query, SourceResult, User
from contracts.errors import ArtifactError


class Graph:
    name = "graph"
    needs_session = False

    def __init__(self, models: RetrievalModels) -> None:
        if models.graph_users is None or models.graph_nearest is None:
            raise ArtifactError("graph vectors not loaded")
        self._users = models.graph_users
        self._nearest = models.graph_nearest

    def retrieve(self, query: Query, user: User, blocked: NDArray[np.bool_], quota: int) -> SourceResult:
        """Nothing for a user whom training never saw."""
        if user.row < 0:
            return SourceResult(np.empty(0, np.int32), np.empty(0, np.float32))
        return self._nearest.search(self._users[user.row], blocked, quota)
