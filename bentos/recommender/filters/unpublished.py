"""An item is not shown before its time."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.types import Candidates, Query, User
from contracts.catalogue import Catalogue


class Unpublished:
    name = "unpublished"

    def __init__(self, catalogue: Catalogue) -> None:
        self._published_us = catalogue.published_us

    def keep(self, query: Query, user: User, candidates: Candidates) -> NDArray[np.bool_]:
        return self._published_us[candidates.items] <= query.now_us
