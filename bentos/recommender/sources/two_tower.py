"""Two-tower retrieval: the user's vector from attributes and the session, then its nearest items."""

from collections.abc import Mapping, Sequence

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
        self._n_items = len(models.embeddings)

    def retrieve(self, query: Query, user: User, blocked: NDArray[np.bool_], quota: int) -> SourceResult:
        """Scores are cosine similarities."""
        (vector,) = self.embed([user], [query.context])
        found = self._nearest.search(vector, blocked, quota)
        return SourceResult(found.items, found.scores, vector)

    def embed(self, users: Sequence[User], contexts: Sequence[Mapping[str, str]]) -> NDArray[np.float32]:
        """float32 [B, D], unit length.

        Raises:
            ArithmeticError: the model gave something else than numbers.
        """
        attributes = np.stack([self._attributes.row(u.row, c) for u, c in zip(users, contexts, strict=True)])
        # Items that came after the model are unknown to it, as are those of other catalogues: -1, left out.
        histories = [np.where(u.history < self._n_items, u.history, -1) for u in users]
        inputs = user_inputs(histories, [u.history_age_h for u in users], attributes)
        vectors: NDArray[np.float32] = self._session.run(None, inputs)[0]
        if not np.isfinite(vectors).all():
            raise ArithmeticError("the user's vector is not finite")
        return vectors
