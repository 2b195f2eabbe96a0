"""From ordered candidates to the words of an answer."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.types import Candidates
from contracts.serving import SOURCES, Degradation, RankedBy

TOP = 50


class IdsBySource(Mapping[str, tuple[str, ...]]):
    """What each source brought, as ids; looked up only when somebody reads them, which is off the response path."""

    def __init__(self, item_ids: Sequence[str], items: Mapping[str, NDArray[np.int32]]) -> None:
        self._item_ids = item_ids
        self._items = items

    def __getitem__(self, source: str) -> tuple[str, ...]:
        return ids_of(self._item_ids, self._items[source])

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def ids_of(item_ids: Sequence[str], items: NDArray[np.int32]) -> tuple[str, ...]:
    return tuple([item_ids[row] for row in items.tolist()])


def source_names(brought: NDArray[np.bool_]) -> tuple[tuple[str, ...], ...]:
    """For each of K candidates the names of the sources that brought it; brought: bool [K, S]."""
    return tuple([tuple([name for name, there in zip(SOURCES, row, strict=True) if there]) for row in brought.tolist()])


def top_of(item_ids: Sequence[str], ranked: Candidates) -> tuple[tuple[str, float], ...]:
    """The first 50 after ranking."""
    return tuple(zip(ids_of(item_ids, ranked.items[:TOP]), ranked.score[:TOP].tolist(), strict=True))


def digest_of(ranked: Candidates) -> str:
    """SHA-256 over all ranked item rows and scores: two answers with the same digest ranked the same."""
    return hashlib.sha256(ranked.items.tobytes() + ranked.score.tobytes()).hexdigest()


def rung(ranked_by: RankedBy, stale: Sequence[str]) -> Degradation:
    """The name of what an answer is: the worst thing that befell it."""
    match ranked_by:
        case "batch" | "cached" | "popularity":
            return ranked_by
        case "logistic" | "retrieval":
            return "simple_ranking"
        case "dcn":
            return "stale_features" if stale else "full"
