"""What is known so far of one request."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bentos.recommender.trace import Trace
from bentos.recommender.types import Query, SourceResult
from contracts.exposures import FeatureUsed
from features.online.base import UserState


@dataclass(slots=True)
class InFlight:
    """Grows stage by stage. notes: what the answer must admit to; union, dropped: for debug."""

    query: Query
    trace: Trace = field(default_factory=Trace)
    state: UserState | None = None
    stale: tuple[str, ...] = ()
    used: tuple[FeatureUsed, ...] = ()
    notes: list[str] = field(default_factory=list)
    brought: dict[str, SourceResult] = field(default_factory=dict)
    union: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def add(self, brought: Mapping[str, SourceResult | str]) -> None:
        """Keep results; a source that was left out is named with the reason."""
        for name, result in brought.items():
            if isinstance(result, str):
                self.notes.append(f"source {name} left out: {result}")
            else:
                self.brought[name] = result
