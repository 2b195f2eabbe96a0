"""Linear item-item weights for the source that retrieves by them: EASE with decay in time, or neighbours at size.

Both are the baselines of the same names (training/baselines/decayed_ease.py, item_knn.py), with the largest weights of
each item kept, so that a request reads a bounded number of them. N items.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from features.item_item import ItemItem
from training.baselines import ease, item_knn
from training.baselines.past import history
from training.interactions import Positives


class ItemItemConfig(BaseModel):
    """Chosen on the validation window of Online Retail II. half_life_d: of the history that is scored; fit_half_life_d:
    of the interactions that weights are learned from; ease_up_to: items; above, BM25 neighbours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    half_life_d: float = Field(60.0, gt=0)
    fit_half_life_d: float = Field(120.0, gt=0)
    regularisation: float = Field(300.0, gt=0)
    neighbours: int = Field(200, ge=1)
    ease_up_to: int = Field(8_000, ge=0)


def fit_item_item(positives: Positives, n_items: int, config: ItemItemConfig) -> ItemItem:
    """Weights as of `positives.until_us`."""
    faded = history(positives, n_items, config.fit_half_life_d)
    if n_items <= config.ease_up_to:
        return _largest(ease.fit(faded, config.regularisation), config.neighbours)
    near = item_knn.neighbours(item_knn.bm25(faded), min(config.neighbours, item_knn.NEIGHBOURS))
    near.sort_indices()
    return ItemItem(near.indptr.astype(np.int64), near.indices.astype(np.int32), near.data.astype(np.float32))


def _largest(dense: NDArray[np.float32], k: int) -> ItemItem:
    """The k entries of each row that are farthest from zero, without zeros; in order of the column."""
    n = len(dense)
    rows: list[NDArray[Any]] = []
    for row in dense:
        at = np.flatnonzero(row)
        if len(at) > k:
            at = np.sort(at[np.argpartition(-np.abs(row[at]), k - 1)[:k]])
        rows.append(at)
    indptr = np.concatenate([[0], np.cumsum([len(at) for at in rows])]).astype(np.int64)
    items = np.concatenate(rows).astype(np.int32) if n else np.empty(0, np.int32)
    owner = np.repeat(np.arange(n), np.diff(indptr))
    return ItemItem(indptr, items, dense[owner, items])
