"""From ordered candidates to the words of an answer."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.types import Candidates, SourceResult
from contracts.catalogue import Catalogue
from contracts.exposures import PackedCandidates, ShownRows
from contracts.ids import ids_at, packed_at
from contracts.serving import SOURCES, Degradation, RankedBy
from features.ranking import row_schema

TOP = 50
SHOWN_ROWS = 20
ROW_SIGNATURE = row_schema().signature[:12]


def packed_candidates(item_ids: Sequence[str], brought: Mapping[str, SourceResult]) -> PackedCandidates | None:
    """The ids of what each source brought. None: no source was asked."""
    if not brought:
        return None
    items = np.concatenate([result.items for result in brought.values()])
    counts = {name: len(result.items) for name, result in brought.items()}
    return PackedCandidates(counts, packed_at(item_ids, items))


def ids_of(item_ids: Sequence[str], items: NDArray[np.int32]) -> tuple[str, ...]:
    return tuple(ids_at(item_ids, items))


# Names of sources by the bits of their places: bit i stands for `SOURCES[i]`.
_NAMES = tuple(tuple(name for at, name in enumerate(SOURCES) if bits >> at & 1) for bits in range(1 << len(SOURCES)))
_BITS = np.array([1 << at for at in range(len(SOURCES))], np.uint8)


def source_names(brought: NDArray[np.bool_]) -> tuple[tuple[str, ...], ...]:
    """For each of K candidates the names of the sources that brought it; brought: bool [K, S]."""
    return tuple([_NAMES[bits] for bits in (brought @ _BITS).tolist()])


def top_of(item_ids: Sequence[str], ranked: Candidates) -> tuple[tuple[str, float], ...]:
    """The first 50 after ranking."""
    return tuple(zip(ids_of(item_ids, ranked.items[:TOP]), ranked.score[:TOP].tolist(), strict=True))


class RowsOfShown:
    """What the ranker read of the items that are shown, picked out when somebody asks, off the response path.

    rows: float32 [K, F], aligned with `items`, int32 [K]; shown: at most K candidates, best first.
    """

    def __init__(
        self, catalogue: Catalogue, items: NDArray[np.int32], rows: NDArray[np.float32], shown: Candidates
    ) -> None:
        self._catalogue = catalogue
        self._items = items
        self._rows = rows
        self._shown_items, self._shown_score = shown.items[:SHOWN_ROWS], shown.score[:SHOWN_ROWS]

    def __call__(self) -> ShownRows:
        items, catalogue = self._shown_items, self._catalogue
        return ShownRows(
            list(ids_of(catalogue.item_ids, items)),
            [catalogue.categories[at] for at in catalogue.category[items].tolist()],
            self._shown_score.tolist(),
            ROW_SIGNATURE,
            self.matrix().tobytes(),
        )

    def matrix(self) -> NDArray[np.float32]:
        """float32 [n, F], aligned with the slate."""
        at = (self._items == self._shown_items[:, None]).argmax(axis=1)  # of so few, quicker than a sort of all
        return self._rows.take(at, axis=0)


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
        case "dcn" | "trees" | "linear" | "ensemble":
            return "stale_features" if stale else "full"
