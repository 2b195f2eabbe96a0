"""The order that retrieval gave: needs no model, cannot fail."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.rankers.base import Rows
from bentos.recommender.types import Candidates
from contracts.serving import RankedBy


class RetrievalOrder:
    name: RankedBy = "retrieval"
    ready = True

    def score(self, candidates: Candidates, rows: Rows) -> NDArray[np.float32]:
        return candidates.retrieval
