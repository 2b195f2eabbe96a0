"""From what each source brought to one union of candidates."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.types import Candidates, SourceResult
from contracts.serving import SOURCES


def normalised(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Min-max to [0, 1]. All equal, or one alone: 1, as each is the best that its source has."""
    low, high = scores.min(), scores.max()
    if not high > low:
        return np.ones(len(scores), np.float32)
    return ((scores - low) / (high - low)).astype(np.float32)


def merge(results: Mapping[str, SourceResult], quotas: Mapping[str, int], total: int, agreement: float) -> Candidates:
    """At most `total` distinct candidates, by merged score, ties by item row.

    Scores are normalised per source and summed, times `agreement` where two or more sources brought the item. The
    first `quotas[source]` items of each source are in; the rest of the union goes to the highest merged scores.
    """
    columns = [i for i, name in enumerate(SOURCES) if name in results and len(results[name].items)]
    brought_by = [results[SOURCES[i]] for i in columns]
    lengths = [len(result.items) for result in brought_by]
    items, at = np.unique(_concatenated([result.items for result in brought_by]), return_inverse=True)
    by_source = np.zeros((len(items), len(SOURCES)), np.float32)
    brought = np.zeros((len(items), len(SOURCES)), np.bool_)
    sure = np.zeros(len(items), np.bool_)
    start = 0
    for column, result, length in zip(columns, brought_by, lengths, strict=True):
        rows = at[start : start + length]
        by_source[rows, column] = normalised(result.scores)
        brought[rows, column] = True
        sure[rows[: quotas[SOURCES[column]]]] = True
        start += length
    score = by_source.sum(axis=1)
    score[brought.sum(axis=1) >= 2] *= agreement
    order = np.lexsort((-score, ~sure))[:total]  # the guaranteed ones first; items ascend, and lexsort is stable
    order = order[np.lexsort((items[order], -score[order]))]
    return Candidates(
        items=items[order].astype(np.int32),
        retrieval=score[order],
        by_source=by_source[order],
        brought=brought[order],
        score=np.full(len(order), np.nan, np.float32),
        vector=next((result.vector for result in results.values() if result.vector is not None), None),
    )


def _concatenated(parts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate(parts) if parts else np.empty(0, np.int32)
