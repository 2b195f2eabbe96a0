"""From live counts to the item features that models read, by a data set's configuration."""

import numpy as np
from numpy.typing import NDArray

from contracts.dataset import DatasetConfig
from contracts.errors import UsageError
from features.item_counts import TOP_GRADE, ItemCounts
from features.registry import COMPLETION_PRIOR, CTR_PRIOR, REGISTRY
from features.streaming import click_event, impression_events


def weights(counts: ItemCounts, config: DatasetConfig) -> NDArray[np.float64]:
    """What an event of each row weighs as a wish for its item: `features.streaming.positive_weight`, by grade.

    Raises:
        UsageError: a rule's `min_value` is no half step from 0 to 10.
    """
    out = np.zeros(len(counts))
    for event, grade in {*zip(counts.events, counts.grade.tolist(), strict=True)}:
        weight = 0.0
        for positive in config.positives:
            if positive.event == event and (positive.min_value is None or grade >= _limit(positive.min_value)):
                weight = positive.weight
                break
        if weight:
            out[[e == event for e in counts.events] & (counts.grade == grade)] = weight
    return out


def is_shown(counts: ItemCounts, config: DatasetConfig) -> NDArray[np.bool_]:
    """Rows of impressions, bool [R]: exposures have the service's name for them, sent ones may have the data set's."""
    names = impression_events(config)
    return np.array([e in names for e in counts.events], np.bool_)


def live_item_features(
    counts: ItemCounts, config: DatasetConfig, rows: NDArray[np.int32], n_items: int
) -> dict[str, NDArray[np.float32]]:
    """`item_trending_score`, and `item_ctr_7d` and `item_completion_rate_7d` where the data set can measure them, from
    the stream alone: name → float32 [n_items]. The definitions are those of features/offline/items.py.

    Args:
        rows: int32 [R], the catalogue row of each row's item, -1 outside it.

    Raises:
        UsageError: as `weights`.
    """
    known = rows >= 0
    item = rows[known]
    event = np.array(counts.events, object)[known]
    n, valued, share = counts.n[known], counts.valued[known], counts.share[known]

    def total(values: NDArray[np.float64] | NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(item[chosen], values[chosen].astype(np.float64), n_items).astype(np.float64)

    wish = (weights(counts, config) * counts.decayed)[known]
    out = {"item_trending_score": np.bincount(item, wish, n_items)}
    if config.impression_event is not None:
        shown = total(n, is_shown(counts, config)[known])
        clicked = np.minimum(total(n, event == click_event(config)), shown)
        prior = REGISTRY["item_ctr_7d"].default
        out["item_ctr_7d"] = (clicked + prior * CTR_PRIOR) / (shown + CTR_PRIOR)
    if config.completion_event is not None:
        seen = event == config.completion_event
        prior = REGISTRY["item_completion_rate_7d"].default
        out["item_completion_rate_7d"] = (total(share, seen) + prior * COMPLETION_PRIOR) / (
            total(valued, seen) + COMPLETION_PRIOR
        )
    return {name: column.astype(np.float32) for name, column in out.items()}


def _limit(min_value: float) -> int:
    if not 0 <= min_value <= TOP_GRADE / 2 or min_value * 2 != int(min_value * 2):
        raise UsageError(
            f"`min_value = {min_value:g}` of a positive: live counts grade values by half steps from 0 to 10",
            next_command="choose a half step in dataset.toml, or let `features materialize` count",
        )
    return int(min_value * 2)
