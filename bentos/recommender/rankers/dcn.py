"""The DCN-V2 ranker (Wang et al. 2021), as an ONNX graph from rows to calibrated probabilities."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import RowScorer, Session
from bentos.recommender.rankers.base import Rows
from bentos.recommender.types import Candidates
from contracts.serving import RankedBy


class OnnxRanker:
    """float32 rows [R, F] → float32 [R]. Rows of several requests may stand in one call."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = self._session.run(None, {"rows": rows})[0]
        return scores.reshape(-1)


class Dcn:
    name: RankedBy = "dcn"

    def __init__(self, model: RowScorer | None) -> None:
        self._model = model

    @property
    def ready(self) -> bool:
        return self._model is not None

    def score(self, candidates: Candidates, rows: Rows) -> NDArray[np.float32]:
        assert self._model is not None  # noqa: S101 - `ready` was asked
        return self._model.score(rows())
