"""Policy: a flagged item is never shown."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.types import Candidates, Query, User
from contracts.catalogue import Catalogue


class Flagged:
    name = "flagged"

    def __init__(self, catalogue: Catalogue) -> None:
        self._flags = catalogue.flags

    def keep(self, query: Query, user: User, candidates: Candidates) -> NDArray[np.bool_]:
        return ~self._flags.now[candidates.items]
