"""Two orders made one by the sum of ranks: what this user's history asks for, and what everybody takes up now.

Agreement comes from decayed EASE; from the sparse ItemKNN where the catalogue is too large for EASE.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training.baselines import decayed_ease, item_knn
from training.baselines.past import Past

HALF_LIFE_D = 3.0  # of the popularity in it
MAX_EASE_ITEMS = 8_000  # here; the two-stage reference solves one matrix a moment


@dataclass(frozen=True, slots=True)
class Blend:
    """weights: [N, N], dense (EASE) or sparse (ItemKNN), applied to `history`; popularity: float64 [N]."""

    past: Past
    weights: NDArray[np.float32] | csr_matrix
    met: csr_matrix
    history: csr_matrix
    popularity: NDArray[np.float64]

    @property
    def source(self) -> str:
        return "ease_decayed" if isinstance(self.weights, np.ndarray) else "item_knn"

    def agreement(self, history: csr_matrix) -> NDArray[np.float32]:
        """float32 [u, N]. history: [u, N] of the same users."""
        scores = history @ self.weights
        return np.asarray(scores if isinstance(scores, np.ndarray) else scores.toarray(), np.float32)

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Minus the sum of both ranks among the items that the user has not met, float32 [u, N]."""
        met = self.met[users]
        agreement = self.agreement(self.history[users])
        trend = np.repeat(self.popularity[None, :], len(users), axis=0)
        return -(ranks(agreement, met) + ranks(trend, met)).astype(np.float32)


def ranks(scores: NDArray[np.floating[Any]], met: csr_matrix) -> NDArray[np.int64]:
    """Place of each item in its row, 0 the best, what the user met last; ties by item. [u, N]"""
    masked = scores.copy()
    masked[np.repeat(np.arange(met.shape[0]), np.diff(met.indptr)), met.indices] = -np.inf
    order = np.argsort(-masked, axis=1, kind="stable")
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(scores.shape[1])[None, :], axis=1)
    return places


def fit(past: Past) -> Blend:
    met = past.history()
    history = past.history(decayed_ease.ITEM_HALF_LIFE_D)
    weights = decayed_ease.fit(past) if past.n_items <= MAX_EASE_ITEMS else item_knn.fit(met)
    return Blend(past, weights, met, history, past.popularity(HALF_LIFE_D))
