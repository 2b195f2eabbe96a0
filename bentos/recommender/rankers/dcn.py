"""The DCN-V2 ranker (Wang et al. 2021), as an ONNX graph from rows to calibrated probabilities."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import Session


class OnnxRanker:
    """float32 rows [R, F] → float32 [R]. Rows of several requests may stand in one call."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = self._session.run(None, {"rows": rows})[0]
        return scores.reshape(-1)
