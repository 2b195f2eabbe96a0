"""A recommender by groups of items: of the wishes for these, how many did it find. NumPy only."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from training.evaluation import metrics
from training.evaluation.metrics import Estimate, Targets
from training.evaluation.protocol import Lists, TestSet
from training.evaluation.report import CANDIDATES, K

OUTSIDE = "item=not in the catalogue"
RECALLS = (f"recall@{K}", f"recall@{CANDIDATES}")


def score_items(lists: Lists, test: TestSet, groups: Mapping[str, NDArray[np.bool_]]) -> dict[str, dict[str, Estimate]]:
    """Group → metric → mean over the users who wished for one of the group. groups: bool [N]; also of the items that
    the catalogue does not have. `recall@500:SOURCE` where each source was asked."""
    masks = {name: np.append(mask, False) for name, mask in groups.items()}
    masks[OUTSIDE] = np.append(np.zeros(test.n_items, bool), True)
    return {name: _score(lists, test, mask) for name, mask in masks.items()}


def _score(lists: Lists, test: TestSet, wide: NDArray[np.bool_]) -> dict[str, Estimate]:
    """wide: bool [N + 1], the last for items outside the catalogue."""
    owners = np.repeat(np.arange(len(test)), test.targets.counts)
    inside = wide[np.minimum(test.targets.items, test.n_items)]
    users, positions = np.unique(owners[inside], return_inverse=True)
    targets = Targets.of(positions, test.targets.items[inside], len(users))
    columns = {RECALLS[0]: (lists.slates, K), RECALLS[1]: (lists.candidates, CANDIDATES)}
    columns |= {f"{RECALLS[1]}:{name}": (items, CANDIDATES) for name, items in (lists.sources or {}).items()}
    return {
        metric: Estimate.of(
            metrics.recall(metrics.hits(items[users][:, :k], targets), targets.counts, k) if len(users) else np.empty(0)
        )
        for metric, (items, k) in columns.items()
    }
