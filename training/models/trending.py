"""Trending: exponentially decayed counts. N items."""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.interactions import Positives


class TrendingConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    half_life_d: float = Field(7.0, gt=0)


def decayed_counts(positives: Positives, n_items: int, half_life_d: float) -> NDArray[np.float32]:
    """float32 [N]: the sum of event weights, each halved every `half_life_d` days before the cut."""
    weight = positives.decayed_weight(half_life_d)
    return np.bincount(positives.item, weights=weight, minlength=n_items).astype(np.float32)


def fit_trending(positives: Positives, n_items: int, config: TrendingConfig) -> NDArray[np.float32]:
    return decayed_counts(positives, n_items, config.half_life_d)
