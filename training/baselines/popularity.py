"""Items that most users met, the same for everyone (minus what they met)."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


def fit(met: csr_matrix) -> NDArray[np.float64]:
    """Score float64 [N]: number of users with a positive event. met: [U, N], 1 where the user met the item."""
    return np.asarray(met.sum(axis=0), np.float64).ravel()
