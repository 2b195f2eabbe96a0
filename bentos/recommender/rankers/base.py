"""What a scorer is. Failure policy: fall back to the next scorer of `compose.scorers`."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.types import Candidates
from contracts.serving import RankedBy

# Makes the rankers' rows, float32 [K, F], at the first call and keeps them.
Rows = Callable[[], NDArray[np.float32]]


class Scorer(Protocol):
    name: RankedBy

    @property
    def ready(self) -> bool:
        """False: its model is not there."""
        ...

    def score(self, candidates: Candidates, rows: Rows) -> NDArray[np.float32]:
        """float32 [K], above zero, higher is better."""
        ...
