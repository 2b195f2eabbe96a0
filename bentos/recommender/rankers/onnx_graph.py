"""A ranker as one ONNX graph, `rows` float32 [R, F] → probabilities float32 [R]: DCN-V2 layer by layer, or trees."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.device import CPU
from bentos.recommender.models import Session
from bentos.recommender.onnx_session import open_session
from contracts.errors import ArtifactError


class OnnxRanker:
    """float32 rows [R, F] → float32 [R]. Rows of several requests may stand in one call."""

    def __init__(self, session: Session, provider: str = CPU) -> None:
        self._session = session
        self.provider = provider

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = self._session.run(None, {"rows": rows})[0]
        return scores.reshape(-1)


def open_graph(path: Path, width: int, threads: int, providers: Sequence[str] = (CPU,)) -> OnnxRanker:
    """
    Raises:
        ArtifactError: the file is not a graph over rows of `width`.
    """
    session = open_session(path, threads=threads, providers=providers)
    inputs = [(node.name, node.shape[-1:]) for node in session.get_inputs()]
    if inputs != [("rows", [width])]:
        raise ArtifactError(f"{path} reads {inputs!s:.200}, this code makes rows of {width}")
    return OnnxRanker(session, session.get_providers()[0])
