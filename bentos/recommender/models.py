"""What is loaded, over memory-mapped arrays. N items, U users, D = 128, G graph dimensions, C categories."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.ann import NearestItems
from contracts.catalogue import Catalogue
from contracts.dataset import DatasetConfig
from contracts.ids import IdIndex
from contracts.serving import Ranker
from features.item_item import ItemItem
from features.two_tower_inputs import AttributeVocab


class Session(Protocol):
    """What this package needs of an ONNX Runtime session."""

    def run(self, outputs: list[str] | None, feeds: Mapping[str, Any]) -> list[Any]: ...


class RowScorer(Protocol):
    """The one contract of all rankers: rows float32 [R, F] → probabilities float32 [R].

    A row's score has the same bits alone and beside any other rows, of whichever users. Rows of another width raise; a
    row with a NaN has no finite score, or the call raises: the next scorer of the chain takes over.
    """

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class RetrievalModels:
    """The retrieval bundle. A part that could not be loaded is None, and its source is left out."""

    users: IdIndex
    seen_indptr: NDArray[np.int64]  # [U + 1]
    seen_items: NDArray[np.int32]
    positive_events: frozenset[str] | None  # None: every event but `impression`
    attributes: AttributeVocab
    embeddings: NDArray[np.float32]  # [N, D]
    item_features: Mapping[str, NDArray[np.float32]]  # name → [N]
    trained_until_us: int
    meaning: DatasetConfig | None = None  # which events are positive, impressions, completions
    creator_exposure: NDArray[np.float32] | None = None
    two_tower: Session | None = None
    nearest: NearestItems | None = None
    graph_users: NDArray[np.float32] | None = None  # [U, G]
    graph_items: NDArray[np.float32] | None = None  # [N, G]
    graph_nearest: NearestItems | None = None
    content_users: NDArray[np.float32] | None = None  # [U, C]
    content_prior: NDArray[np.float32] | None = None  # [C]
    content_items: NDArray[np.float32] | None = None  # [N]
    trending: NDArray[np.float32] | None = None  # [N]
    seen_at_us: NDArray[np.int64] | None = None  # aligned with `seen_items`: when each was last taken up
    item_item: ItemItem | None = None
    item_item_half_life_d: float = 0.0  # of the history that it is applied to
    made_without: frozenset[str] = frozenset()  # sources that this bundle never had


@dataclass(frozen=True, slots=True)
class FallbackModels:
    """popularity: item rows best first, overall and by country; the last resort of every answer."""

    popularity: NDArray[np.int32]
    by_country: Mapping[str, NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Models:
    """Everything that serves. `problems`: part → why it is not there; the service starts without it and says so."""

    catalogue: Catalogue
    retrieval: RetrievalModels | None
    ranker: RowScorer | None
    light: RowScorer | None
    fallback: FallbackModels | None
    clock: Literal["wall", "log_end"] = "wall"
    log_end_us: int = 0
    provider: str = ""  # ONNX execution provider of the ranker
    ranked_by: Ranker = "dcn"  # what the ranking bundle holds, also where another process loads it
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def index(self) -> IdIndex:
        """Item ids to rows."""
        return self.catalogue.index

    def now_us(self) -> int:
        """The data set's clock, microseconds since 1970 UTC."""
        return self.log_end_us if self.clock == "log_end" else time.time_ns() // 1000
