"""What a re-ranker is. It reorders and changes scores; it drops nothing. Failure policy: skip, with a note."""

from dataclasses import dataclass
from typing import Protocol

from bentos.recommender.types import Candidates, Query


@dataclass(frozen=True, slots=True)
class Reranked:
    """decisions: for debug; notes: what the answer must admit to (rules that had to give way)."""

    candidates: Candidates
    decisions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Reranker(Protocol):
    name: str

    def rerank(self, query: Query, candidates: Candidates) -> Reranked: ...
