"""EASE with decay in time: what was bought together long ago counts less, and so does a user's own old history.

Steck, WWW 2019, on weights 2^(−age / half-life) in place of ones: one half-life for the Gram matrix that the item-item
weights are solved from, a shorter one for the history that they are applied to.
"""

import numpy as np
from numpy.typing import NDArray

from training.baselines import ease
from training.baselines.past import Past

ITEM_HALF_LIFE_D = 60.0  # of the history that is scored
USER_HALF_LIFE_D = 120.0  # of the interactions that the weights are learned from
REGULARISATION = 300.0  # on the validation window of Online Retail II better than 1000, as decayed counts are smaller


def fit(past: Past, regularisation: float = REGULARISATION) -> NDArray[np.float32]:
    """Weights float32 [N, N], to be applied to `past.history(ITEM_HALF_LIFE_D)`.

    Raises:
        TooManyItems: more than `ease.MAX_ITEMS`.
    """
    ease.check_size(past.n_items)
    return ease.fit(past.history(USER_HALF_LIFE_D), regularisation)
