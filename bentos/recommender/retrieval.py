"""Running sources: each in its time, a late or failing one left out by name."""

import copy
import time
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.compose import FunnelConfig, sources
from bentos.recommender.eligibility import Eligibility
from bentos.recommender.inflight import NO_LIMITS
from bentos.recommender.models import Models
from bentos.recommender.trace import Trace
from bentos.recommender.types import Query, Source, SourceResult, User
from contracts.budgets import Plan
from contracts.rules import RulesDocument

# What a source brought, or why it was left out.
Brought = dict[str, SourceResult | str]


class Retrieval:
    """All sources over one set of models. Also the body of the `Retrieval` runner."""

    def __init__(self, models: Models, rules: RulesDocument, config: FunnelConfig) -> None:
        self.sources: Mapping[str, Source] = sources(models)
        self._eligibility = Eligibility(models.catalogue, rules)
        self._config = config
        self._n_items = len(models.catalogue)

    def under(self, rules: RulesDocument) -> "Retrieval":
        """The same sources under other rules."""
        other = copy.copy(self)
        other._eligibility = self._eligibility.under(rules)
        return other

    def names(self, *, needs_session: bool) -> tuple[str, ...]:
        return tuple(name for name, source in self.sources.items() if source.needs_session is needs_session)

    def blocked(self, query: Query, user: User) -> NDArray[np.bool_]:
        """bool [N], what no source may bring."""
        return self._eligibility.blocked(query, user)

    def also_seen(self, blocked: NDArray[np.bool_], user: User) -> None:
        """Of the same user, of whom more has become known: what was blocked still is."""
        self._eligibility.block_seen(blocked, user)

    def retrieve(
        self,
        names: Iterable[str],
        query: Query,
        user: User,
        trace: Trace | None = None,
        n: int | None = None,
        limits: Plan = NO_LIMITS,
        blocked: NDArray[np.bool_] | None = None,
    ) -> Brought:
        """Ask the named sources one after another. `n`: items a source, default its reach. blocked: of this user, where
        the caller has it.

        A native call cannot be cancelled, so time is looked at before each source and after it: none starts after the
        moment by which retrieval must have ended, and what took longer than its budget is not used.
        """
        brought: Brought = {}
        for name in names:
            source = self.sources.get(name)
            if source is None:
                brought[name] = "not loaded"
                continue
            if time.perf_counter() > limits.retrieval_until:
                brought[name] = "no time left"
                continue
            if blocked is None:
                blocked = self.blocked(query, user)
            began = time.perf_counter()
            try:
                brought[name] = source.retrieve(query, user, blocked, n or self._config.reach(name, self._n_items))
            except Exception as error:
                brought[name] = f"failed: {error!r}"
            ended = time.perf_counter()
            if trace is not None:
                trace.add(f"source.{name}", began, ended)
            if ended - began > limits.source_s:
                brought[name] = f"late: {(ended - began) * 1e3:.0f} ms of {limits.source_s * 1e3:g}"
        return brought
