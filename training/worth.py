"""What each wish of a window is worth to the ranker, by the gains of its framing. U users, N items."""

from collections.abc import Mapping

import numpy as np
from scipy.sparse import csr_matrix

from contracts.dataset import DatasetConfig
from training.holdout import Window


def worth(
    window: Window, config: DatasetConfig, gains: Mapping[str, float], shape: tuple[int, int]
) -> csr_matrix | None:
    """float32 [U, N]: the highest gain of a user's wishes for an item, 0 without one; None where all are worth 1.

    shape: (U, N), of the training log and the catalogue.
    """
    by_rule = np.array([gains.get(positive.event, 1.0) for positive in config.positives], np.float32)
    if (by_rule == 1).all():
        return None
    inside = (window.user >= 0) & (window.item < shape[1])
    user, item, gain = window.user[inside].astype(np.int64), window.item[inside], by_rule[window.rule[inside]]
    order = np.lexsort((-gain, item, user))
    user, item, gain = user[order], item[order], gain[order]
    first = np.r_[True, (user[1:] != user[:-1]) | (item[1:] != item[:-1])][: len(user)]
    return csr_matrix((gain[first], (user[first], item[first])), shape=shape)
