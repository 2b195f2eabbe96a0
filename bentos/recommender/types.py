"""What the stages hand to one another. Shapes: N items in the catalogue, K candidates, S sources, F row columns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.trace import Trace
from contracts.exposures import FeatureUsed, ShownRows
from contracts.serving import Aim, Degradation, RankedBy
from features.online.base import UserState


@dataclass(frozen=True, slots=True)
class Query:
    """One request, inside. `now_us`: the data set's clock. `deadline`: `time.perf_counter()` seconds."""

    request_id: str
    user_id: str
    k: int
    now_us: int
    deadline: float
    context: Mapping[str, str] = field(default_factory=dict)
    exclude: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))  # item rows
    debug: bool = False
    sources_off: tuple[str, ...] = ()
    shadow: bool = False  # nobody sees the answer: it is not to be remembered
    aim: Aim = "full"  # the rung to start at: a busy process asks for a cheaper one


@dataclass(frozen=True, slots=True)
class User:
    """A user as the sources and the ranker see them, resolved at `Query.now_us`.

    row: row of the user in the models, -1 unknown. history: item rows, newest first, at most 10, unknown items left
    out. seen: item rows never to be shown again. met, met_at_us: item rows that the user took up, ascending, and when
    each was last; empty where only lists are asked. features: by name, past its TTL → the default. stale: names of
    features that had a value which is too old.
    """

    row: int
    state: UserState
    history: NDArray[np.int32]
    history_age_h: NDArray[np.float32]
    seen: NDArray[np.int32]
    features: Mapping[str, Any] = field(default_factory=dict)
    used: tuple[FeatureUsed, ...] = ()
    stale: tuple[str, ...] = ()
    met: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    met_at_us: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class SourceResult:
    """Best first. items: int32 [≤ quota]; scores: float32, any scale, higher is better.

    vector: float32 [D], what two-tower searched with; None from the others.
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    vector: NDArray[np.float32] | None = None


class Source(Protocol):
    """A retrieval source. Failure policy: skip. `needs_session`: waits for the online store.

    `blocked`: bool [N], items that must not be brought (seen, excluded, flagged, not yet published): they are left out
    before the quota, so that a full quota of allowed items comes back where there are that many.
    """

    name: str
    needs_session: bool

    def retrieve(self, query: Query, user: User, blocked: NDArray[np.bool_], quota: int) -> SourceResult: ...


@dataclass(frozen=True, slots=True)
class Candidates:
    """Aligned columns over K candidates.

    items: int32 [K]; retrieval: float32 [K], merged score; by_source: float32 [K, S], normalised to [0, 1], 0 where a
    source did not bring the item; brought: bool [K, S]; score: float32 [K], what the ranker said (NaN before it);
    vector: float32 [D], the user's two-tower vector, None without that source.
    """

    items: NDArray[np.int32]
    retrieval: NDArray[np.float32]
    by_source: NDArray[np.float32]
    brought: NDArray[np.bool_]
    score: NDArray[np.float32]
    vector: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def take(self, keep: NDArray[Any]) -> "Candidates":
        """Rows by mask or by position: for filters and selectors only."""
        at = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
        return Candidates(
            self.items.take(at),
            self.retrieval.take(at),
            self.by_source.take(at, axis=0),  # a fancy index takes five times as long for rows this short
            self.brought.take(at, axis=0),
            self.score.take(at),
            self.vector,
        )


@dataclass(frozen=True, slots=True)
class Slate:
    """The answer before it is words. items: int32 [≤ k], best first."""

    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    sources: tuple[tuple[str, ...], ...]
    degradation: Degradation
    ranked_by: RankedBy
    stale: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    debug: Mapping[str, Any] | None = None
    # For the context record: the first 50 after ranking, digest over all, and what these are made of.
    top: tuple[tuple[str, float], ...] = ()
    digest: str = ""
    used: tuple[FeatureUsed, ...] = ()
    shown: Callable[[], ShownRows] | None = None  # what the ranker read of the first items; None: it read nothing
    ranked: "Candidates | None" = None
    brought: Mapping[str, SourceResult] = field(default_factory=dict)
    state: UserState | None = None  # what the store said of the user
    aim: Aim = "full"  # the rung that it started at
    items_from: tuple[str, int] = ("", 0)  # `ItemView.source`
    trace: Trace | None = None
    batch_age_s: float | None = None  # of the published list that this is, on the data set's clock
