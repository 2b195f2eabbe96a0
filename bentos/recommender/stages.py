"""The stages of the request path in order, for one set of models. Native work: they belong to the compute thread."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bentos.recommender import compose
from bentos.recommender.breaker import Breaker
from bentos.recommender.compose import FunnelConfig
from bentos.recommender.filtering import keep_allowed
from bentos.recommender.hydrate import Hydrate
from bentos.recommender.inflight import InFlight
from bentos.recommender.items import ItemTable, ItemView
from bentos.recommender.merge import merge
from bentos.recommender.models import Models
from bentos.recommender.ranking import NO_BREAKERS, Given, rank
from bentos.recommender.rerank.base import Reranker
from bentos.recommender.retrieval import Retrieval
from bentos.recommender.slates import RowsOfShown, digest_of, ids_of, rung, source_names, top_of
from bentos.recommender.types import Candidates, Query, Slate, User
from contracts.errors import ArtifactError
from contracts.rules import RulesDocument
from contracts.serving import RankedBy
from features.online.base import UserState
from features.ranking import NO_LENGTH, norms_of
from features.ranking import rows as ranking_rows

NOTHING: Mapping[str, Any] = {}


class Stages:
    def __init__(
        self, models: Models, rules: RulesDocument, config: FunnelConfig, before: "Stages | None" = None
    ) -> None:
        """before: over other models; what holds for these too is taken over."""
        self.models = models
        self.rules = rules
        self.rules_digest = rules.digest
        self.config = config
        self.hydrate = Hydrate(models)
        self.retrieval = Retrieval(models, rules, config)
        self.filters = compose.filters(models, rules)
        self.scorers = compose.scorers(models)
        # The last scorer is none's to fail: it puts in order what is there.
        self.breakers: dict[str, Breaker] = {scorer.name: Breaker(config.breaker) for scorer in self.scorers[:-1]}
        self.rerankers = compose.rerankers(models, rules)
        loaded = models.retrieval
        graph = None if loaded is None else loaded.graph_items
        self._graph = graph
        self._graph_norms: NDArray[np.float32] | None = None
        if graph is not None:
            known = before._graph_norms if before is not None and before._graph is graph else None
            norms = norms_of(graph) if known is None else known[: len(graph)]
            more = len(models.catalogue) - len(graph)  # items that came after the models have no vector
            self._graph_norms = np.concatenate([norms, np.full(more, NO_LENGTH)])
        self.items = ItemTable(
            models.catalogue,
            {} if loaded is None else loaded.item_features,
            0 if loaded is None else loaded.trained_until_us,
            fixed_clock=models.clock == "log_end",
        )

    def over(self, models: Models, columns: Mapping[str, NDArray[np.float32]], columns_us: int) -> "Stages":
        """Other models under the same rules, with the item features that are in use; `columns` over them, as of
        `columns_us`. On any thread."""
        other = Stages(models, self.rules, self.config, self)
        if models.retrieval is not None:  # else nothing is ranked, and the items may have other numbers
            other.items = self.items.over(models.catalogue, models.now_us(), columns, columns_us)
        # The ranker has another name where its bundle could not be read before.
        other.breakers |= {name: breaker for name, breaker in self.breakers.items() if name in other.breakers}
        return other

    def under(self, rules: RulesDocument) -> "Stages":
        """The same models, sources and item features, under other rules."""
        other = copy.copy(self)
        other.rules = rules
        other.rules_digest = rules.digest
        other.retrieval = self.retrieval.under(rules)
        other.filters = compose.filters(self.models, rules)
        other.rerankers = compose.rerankers(self.models, rules)
        return other

    def gather(self, flight: InFlight, state: UserState) -> User:
        """Hydrate, and ask all sources. The early ones know the user as while the store is being read."""
        query = flight.query
        known = self.hydrate.known(query)
        early, late = (self.retrieval.names(needs_session=needs) for needs in (False, True))
        flight.add(self.retrieval.retrieve(early, query, known, flight.trace, limits=flight.plan))
        with flight.trace.stage("hydrate"):
            user = self.hydrate.resolve(query, known, state)
        flight.stale = user.stale
        flight.add(self.retrieval.retrieve(late, query, user, flight.trace, limits=flight.plan))
        return user

    def one_hop(self, flight: InFlight, known: User, user: User) -> tuple[Slate, Candidates]:
        """All of it, where the store did not have to be waited for. The early sources know the user as ever."""
        flight.worth("retrieval")
        off = flight.query.sources_off
        early = tuple(name for name in self.retrieval.names(needs_session=False) if name not in off)
        blocked = self.retrieval.blocked(flight.query, known)
        flight.add(
            self.retrieval.retrieve(early, flight.query, known, flight.trace, limits=flight.plan, blocked=blocked)
        )
        self.retrieval.also_seen(blocked, user)
        return self.second_hop(flight, user, blocked)

    def second_hop(
        self, flight: InFlight, user: User, blocked: NDArray[np.bool_] | None = None
    ) -> tuple[Slate, Candidates]:
        """What needs the session, then all that follows. blocked: for this user, where it is known."""
        flight.worth("retrieval")
        off = flight.query.sources_off
        late = tuple(name for name in self.retrieval.names(needs_session=True) if name not in off)
        flight.add(self.retrieval.retrieve(late, flight.query, user, flight.trace, limits=flight.plan, blocked=blocked))
        return self.conclude(flight, user, self.union(flight, user))

    def union(self, flight: InFlight, user: User) -> Candidates:
        """Merge, then filter. May be empty."""
        flight.worth("merge")
        with flight.trace.stage("merge"):
            union = merge(flight.brought, self.config.quotas, self.config.total, self.config.agreement)
            flight.union = len(union)
        with flight.trace.stage("filter"):
            allowed, flight.dropped, notes = keep_allowed(self.filters, flight.query, user, union)
        flight.notes += notes
        return allowed

    def conclude(
        self,
        flight: InFlight,
        user: User,
        candidates: Candidates,
        rows: NDArray[np.float32] | None = None,
        given: Given | None = None,
    ) -> tuple[Slate, Candidates]:
        """Rank, re-rank, slate; and the candidates that are shown. rows, given: what was made elsewhere already.

        Raises:
            LookupError: there are no candidates.
            NotBegun: the time is up, or nobody waits.
        """
        if not len(candidates):
            raise LookupError("no candidates")
        flight.worth("ranking")
        ranked, ranked_by = self._rank(flight, user, candidates, rows, given or {})
        flight.worth("reranking")
        with flight.trace.stage("rerank"):
            shown, decisions = self.rerank(flight, ranked, self.rerankers)
        if self.models.retrieval is not None:
            view = self.view(flight)
            flight.stale += view.stale
            flight.used = (*user.used, *view.used)
        item_ids = self.models.catalogue.item_ids
        for_context: dict[str, Any] = {
            "top": top_of(item_ids, ranked),
            "digest": digest_of(ranked),
            "ranked": ranked,
            "brought": flight.brought,
        }
        if flight.rows is not None:
            for_context["shown"] = RowsOfShown(self.models.catalogue, candidates.items, flight.rows, shown)
        return self.slate(flight, user, shown, ranked_by, decisions, for_context), shown

    def _rank(
        self, flight: InFlight, user: User, candidates: Candidates, rows: NDArray[np.float32] | None, given: Given
    ) -> tuple[Candidates, RankedBy]:
        query = flight.query
        made = rows

        def rows_once() -> NDArray[np.float32]:
            nonlocal made
            if made is None:
                with flight.trace.stage("rows"):
                    made = self.rows(query, user, candidates, self.view(flight))
            return made

        # Evaluation asks every time: what it measures must not hang on the clock.
        breakers = NO_BREAKERS if math.isinf(flight.plan.deadline) else self.breakers
        with flight.trace.stage("rank"):
            ranked, ranked_by, notes = rank(
                self.scorers,
                candidates,
                rows_once,
                given=given,
                deadline=flight.plan.ranking_until,
                aim=query.aim,
                breakers=breakers,
            )
        flight.notes += notes
        flight.rows = made
        return ranked, ranked_by

    def view(self, flight: InFlight) -> ItemView:
        """The items as the first stage that asks finds them: fresh features may come in before the answer is made."""
        if flight.view is None:
            flight.view = self.items.at(flight.query.now_us)
        return flight.view

    def rows(
        self, query: Query, user: User, candidates: Candidates, view: ItemView | None = None
    ) -> NDArray[np.float32]:
        """What the rankers read, float32 [K, F].

        view: of the items; as they are at `query.now_us` unless given.

        Raises:
            ArtifactError: the retrieval models are not there.
        """
        return ranking_rows(**self.row_inputs(query, user, candidates, view))

    def row_inputs(
        self, query: Query, user: User, candidates: Candidates, view: ItemView | None = None
    ) -> dict[str, Any]:
        """What rows are made of: the arguments of `features.ranking.rows`. Raises as `rows` does."""
        loaded = self.models.retrieval
        if loaded is None:
            raise ArtifactError("no retrieval models to make rows from")
        known = loaded.graph_users is not None and user.row >= 0
        return {
            "items": candidates.items,
            "retrieval": candidates.retrieval,
            "by_source": candidates.by_source,
            "history": user.history,
            "history_age_h": user.history_age_h,
            "features": user.features,
            "context": query.context,
            "now_us": query.now_us,
            "catalogue": self.models.catalogue,
            "block": (view or self.items.at(query.now_us)).block,
            "item_embeddings": loaded.embeddings,
            "brought": candidates.brought,
            "query_embedding": candidates.vector,
            "graph_items": loaded.graph_items,
            "graph_user": loaded.graph_users[user.row] if known and loaded.graph_users is not None else None,
            "graph_norms": self._graph_norms,
            "n_seen": len(user.seen),
            "item_item": loaded.item_item,
            "met": user.met,
            "met_at_us": user.met_at_us,
        }

    def rerank(
        self, flight: InFlight, ranked: Candidates, rerankers: Sequence[Reranker]
    ) -> tuple[Candidates, list[str]]:
        """The first k after all re-rankers. One that fails, or that loses candidates, is skipped by name."""
        decisions: list[str] = []
        for stage in rerankers:
            try:
                done = stage.rerank(flight.query, ranked)
                if len(done.candidates) != len(ranked):
                    raise ValueError(f"{len(ranked)} candidates in, {len(done.candidates)} out")
            except Exception as error:
                flight.notes.append(f"re-ranker {stage.name} skipped: {error!r}")
                continue
            ranked = done.candidates
            decisions += [f"{stage.name}: {decision}" for decision in done.decisions]
            flight.notes += done.notes
        k = flight.query.k
        return (ranked if len(ranked) <= k else ranked.take(np.arange(k))), decisions

    def slate(
        self,
        flight: InFlight,
        user: User,
        shown: Candidates,
        ranked_by: RankedBy,
        decisions: Sequence[str] = (),
        for_context: Mapping[str, Any] = NOTHING,
    ) -> Slate:
        """The answer; `for_context`: what only the context record wants of it."""
        item_ids = self.models.catalogue.item_ids
        debug: dict[str, Any] | None = None
        if flight.query.debug:
            debug = {
                "spans_ms": {name: [round(a, 3), round(b, 3)] for name, (a, b) in flight.trace.spans.items()},
                "candidates": {name: len(result.items) for name, result in flight.brought.items()},
                "union": flight.union,
                "dropped": flight.dropped,
                "decisions": list(decisions),
                "rules": self.rules_digest,
            }
        return Slate(
            item_ids=ids_of(item_ids, shown.items),
            scores=tuple(shown.score.tolist()),
            sources=source_names(shown.brought),
            degradation=rung(ranked_by, flight.stale),
            ranked_by=ranked_by,
            stale=flight.stale,
            notes=tuple(flight.notes),
            stages_ms=flight.trace.stages_ms,
            trace=flight.trace,
            debug=debug,
            used=flight.used or user.used,
            state=flight.state or user.state,
            aim=flight.query.aim,
            items_from=("", 0) if flight.view is None else flight.view.source,
            **for_context,
        )
