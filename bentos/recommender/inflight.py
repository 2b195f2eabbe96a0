"""What is known so far of one request."""

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.items import ItemView
from bentos.recommender.trace import Trace
from bentos.recommender.types import Query, SourceResult
from contracts.budgets import Budgets, Plan
from contracts.exposures import FeatureUsed
from features.online.base import UserState

NO_LIMITS = Budgets().plan(0.0, math.inf)


class NotBegun(Exception):
    """A stage was left undone: nobody waits for what it would make."""


@dataclass(slots=True)
class InFlight:
    """Grows stage by stage. notes: what the answer must admit to; union, dropped: for debug.

    given_up: set on the event loop, read on the compute thread, when the caller has left or a lower rung has answered.
    """

    query: Query
    trace: Trace = field(default_factory=Trace)
    state: UserState | None = None
    stale: tuple[str, ...] = ()
    used: tuple[FeatureUsed, ...] = ()
    view: ItemView | None = None  # of the items, the same from the rows to the record
    notes: list[str] = field(default_factory=list)
    brought: dict[str, SourceResult] = field(default_factory=dict)
    plan: Plan = NO_LIMITS
    given_up: bool = False
    not_begun: Counter[str] = field(default_factory=Counter)
    rows: NDArray[np.float32] | None = None  # [K, F], what the rankers read of the candidates
    union: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def add(self, brought: Mapping[str, SourceResult | str]) -> None:
        """Keep results; a source that was left out is named with the reason."""
        for name, result in brought.items():
            if isinstance(result, str):
                self.notes.append(f"source {name} left out: {result}")
            else:
                self.brought[name] = result

    def worth(self, stage: str) -> None:
        """
        Raises:
            NotBegun: the stage is not worth beginning, as its result would come too late or for nobody.
        """
        if self.given_up or time.perf_counter() > self.plan.answer_at:
            self.not_begun[stage] += 1
            raise NotBegun(stage)
