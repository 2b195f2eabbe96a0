"""Most interacted items, the same for everyone (minus what they met)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def fit(items: NDArray[np.integer[Any]], n_items: int) -> NDArray[np.float64]:
    """Score float64 [N]: number of positive events of each item. items: [E] rows."""
    return np.bincount(items, minlength=n_items).astype(np.float64)
