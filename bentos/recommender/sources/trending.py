"""What is rising: exponentially decayed counts, the same for everyone."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import RetrievalModels
from bentos.recommender.types import Query, SourceResult, User
from contracts.errors import ArtifactError


class Trending:
    name = "trending"
    needs_session = False

    def __init__(self, models: RetrievalModels) -> None:
        if models.trending is None:
            raise ArtifactError("trending scores not loaded")
        self._order = np.argsort(-models.trending, kind="stable").astype(np.int32)
        self._scores = models.trending[self._order]

    def retrieve(self, query: Query, user: User, blocked: NDArray[np.bool_], quota: int) -> SourceResult:
        """The first allowed ones of one fixed order: reads on only as far as the blocked items ask for."""
        depth = min(len(self._order), 4 * quota)
        while True:
            allowed = np.flatnonzero(~blocked[self._order[:depth]])[:quota]
            if len(allowed) == quota or depth == len(self._order):
                return SourceResult(self._order[allowed], self._scores[allowed])
            depth = min(len(self._order), 8 * depth)
