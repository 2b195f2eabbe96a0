"""What the request itself asks to leave out."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.filters.base import among
from bentos.recommender.types import Candidates, Query, User


class Excluded:
    name = "excluded"

    def keep(self, query: Query, user: User, candidates: Candidates) -> NDArray[np.bool_]:
        if not len(query.exclude):
            return np.ones(len(candidates), np.bool_)
        return ~among(candidates.items, query.exclude)
