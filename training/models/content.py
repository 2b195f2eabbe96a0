"""Content affinity: a Dirichlet-multinomial posterior per user over categories. U users, N items, C categories.

A user's shares are Dirichlet with the decayed global shares as prior mean; the events are multinomial draws. The
posterior mean is (alpha * prior + counts) / (alpha + total): a new user gets the prior, and the more is known of a
user, the less it weighs. The score of an item is P(category | user) * P(item | category).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.interactions import DAY_US, Positives
from training.models.trending import decayed_counts


class ContentConfig(BaseModel):
    """prior_strength: how many events the prior counts for. fresh_boost: pseudo-count that an item has on its first
    day, as a multiple of the mean decayed count, halving every `fresh_half_life_d`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prior_strength: float = Field(10.0, gt=0)
    user_half_life_d: float = Field(120.0, gt=0)
    item_half_life_d: float = Field(14.0, gt=0)
    fresh_boost: float = Field(20.0, ge=0)
    fresh_half_life_d: float = Field(14.0, gt=0)


@dataclass(frozen=True, slots=True)
class ContentModel:
    """users: float32 [U, C], posterior means; prior: float32 [C]; items: float32 [N], P(item | category)."""

    users: NDArray[np.float32]
    prior: NDArray[np.float32]
    items: NDArray[np.float32]


def fit_content(
    positives: Positives,
    category: NDArray[np.int32],
    n_categories: int,
    published_us: NDArray[np.int64],
    config: ContentConfig,
) -> ContentModel:
    """category: int32 [N]; published_us: int64 [N]."""
    weight = positives.decayed_weight(config.user_half_life_d)
    cells = positives.user.astype(np.int64) * n_categories + category[positives.item]
    counts = np.bincount(cells, weights=weight, minlength=positives.n_users * n_categories)
    counts = counts.reshape(positives.n_users, n_categories)

    recent = decayed_counts(positives, len(category), config.item_half_life_d)
    by_category = np.bincount(category, weights=recent, minlength=n_categories) + 1e-3
    prior = by_category / by_category.sum()
    users = (config.prior_strength * prior + counts) / (config.prior_strength + counts.sum(axis=1, keepdims=True))

    age_d = np.maximum(0.0, (positives.until_us - published_us) / DAY_US)
    fresh = config.fresh_boost * recent.mean() * np.exp2(-age_d / config.fresh_half_life_d)
    standing = recent + fresh + 1e-3 * max(float(recent.mean()), 1e-6)
    items = standing / np.bincount(category, weights=standing, minlength=n_categories)[category]
    return ContentModel(users.astype(np.float32), prior.astype(np.float32), items.astype(np.float32))
