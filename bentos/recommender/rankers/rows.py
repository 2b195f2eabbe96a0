"""A scorer of the chain over a model that reads rows: the deep ranker and the light one alike."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import RowScorer
from bentos.recommender.rankers.base import Rows
from bentos.recommender.types import Candidates
from contracts.serving import RankedBy


class RowRanker:
    def __init__(self, name: RankedBy, model: RowScorer | None) -> None:
        self.name = name
        self._model = model

    @property
    def ready(self) -> bool:
        return self._model is not None

    def score(self, candidates: Candidates, rows: Rows) -> NDArray[np.float32]:
        assert self._model is not None  # noqa: S101 - `ready` was asked
        return self._model.score(rows())
