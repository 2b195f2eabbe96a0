"""The request path: one line a stage.

    hydrate → sources → merge → filter → rank → re-rank → slate

`recommend` serves: the store is read while the sources that need no session run, then the rest runs in a second hop on
the compute thread. `run` is the same stages one after another, for evaluation, batch and replay. Where a full answer
is not to be had in time, `lowest` answers from lists that are there already.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bentos.recommender import compose
from bentos.recommender.compose import FunnelConfig
from bentos.recommender.filtering import keep_allowed
from bentos.recommender.hydrate import Hydrate
from bentos.recommender.items import ItemTable
from bentos.recommender.ladder import Lists, followed_by, rung
from bentos.recommender.merge import merge
from bentos.recommender.models import Models
from bentos.recommender.ranking import Given, rank
from bentos.recommender.remote import Compute, RemoteFallback, RemoteRanking, RemoteRetrieval
from bentos.recommender.rerank.base import Reranker
from bentos.recommender.retrieval import Brought, Retrieval
from bentos.recommender.slates import IdsBySource, digest_of, ids_of, source_names, top_of
from bentos.recommender.trace import Trace
from bentos.recommender.types import Candidates, Query, Slate, SourceResult, User
from contracts.errors import ArtifactError, Overloaded
from contracts.exposures import FeatureUsed
from contracts.rules import RulesDocument
from contracts.serving import SOURCES, RankedBy
from features.online.base import ItemSnapshot, OnlineStore, UserState
from features.ranking import rows as ranking_rows

T = TypeVar("T")
NO_RULES = RulesDocument(
    version="none", category_cap=None, fresh_floor=0, creator_floor=0, promoted_boost=1.0, suppress_seen=True
)


@dataclass(slots=True)
class _Request:
    """What is known so far of one request: it grows stage by stage, and a lower rung uses what is there."""

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


class Funnel:
    """Thread use: `recommend` and `lowest` on the event loop; everything native on the compute thread."""

    def __init__(
        self,
        models: Models,
        rules: RulesDocument | None,
        *,
        config: FunnelConfig | None = None,
        compute: Compute | None = None,
        remote_retrieval: RemoteRetrieval | None = None,
        remote_ranking: RemoteRanking | None = None,
        remote_fallback: RemoteFallback | None = None,
    ) -> None:
        """`rules` None: no rules on composition, for evaluation; policy still holds."""
        self.models = models
        self.rules = rules or NO_RULES
        self.config = config or FunnelConfig()
        self.retrieval = Retrieval(models, self.rules, self.config)
        self.filters = compose.filters(models, self.rules)
        self.scorers = compose.scorers(models)
        self.rerankers = compose.rerankers(models, self.rules)
        self.lists = Lists(models, self.config.cached_slates)
        loaded = models.retrieval
        self.items = ItemTable(
            models.catalogue,
            {} if loaded is None else loaded.item_features,
            0 if loaded is None else loaded.trained_until_us,
            fixed_clock=models.clock == "log_end",
        )
        self._hydrate = Hydrate(models)
        self._compute = compute
        self._remote_retrieval = remote_retrieval
        self._remote_ranking = remote_ranking
        self._remote_fallback = remote_fallback

    # --- serving -----------------------------------------------------------------------------------------------------

    async def recommend(self, query: Query, store: OnlineStore) -> Slate:
        """The best slate that can be had before `query.deadline`.

        Raises:
            Overloaded: not even popularity is there.
        """
        request = _Request(query)
        began = time.perf_counter()
        whole = query.deadline - began
        try:
            async with asyncio.timeout(_seconds(whole * (1 - self.config.reserve_share))):
                slate, kept = await self._serve(request, store, began, whole)
        except TimeoutError:
            why = "the deadline passed"
        except Exception as error:
            why = repr(error)
        else:
            self.lists.remember(query.user_id, kept)
            return slate
        return self._lowest(request, why)

    async def _serve(
        self, request: _Request, store: OnlineStore, began: float, whole: float
    ) -> tuple[Slate, Candidates]:
        query, trace = request.query, request.trace
        known = self._hydrate.known(query)
        early_until = began + whole * self.config.early_share
        early_query = replace(query, deadline=early_until)
        early_names = self._names(needs_session=False)
        early = asyncio.ensure_future(self._retrieve(early_names, early_query, known, trace))
        early.add_done_callback(_noticed)
        try:
            request.state = await self._read(request, store, whole * self.config.store_share)
            with trace.stage("hydrate"):
                user = self._hydrate.resolve(query, known, request.state)
            request.stale = user.stale or request.stale
            try:
                async with asyncio.timeout(_seconds(early_until - time.perf_counter())):
                    request.add(await early)
            except TimeoutError:
                request.add(dict.fromkeys(early_names, "late: not back when the rest had to start"))
        finally:
            early.cancel()
        if self._remote_retrieval is None and self._remote_ranking is None and self._remote_fallback is None:
            return await self._on_compute(lambda: self._finish(request, user))
        request.add(await self._retrieve(self._names(needs_session=True), query, user, trace))
        candidates, rows = await self._on_compute(lambda: self._with_rows(request, user))
        given = await self._remote_scores(rows, trace)
        return await self._on_compute(lambda: self._conclude(request, user, candidates, given, rows))

    async def _read(self, request: _Request, store: OnlineStore, seconds: float) -> UserState:
        """One round trip. A store that is away or late costs the user's features, not the answer."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_seconds(seconds)):
                return await store.read_user(request.query.user_id)
        except TimeoutError:
            request.notes.append("online store: late")
        except Exception as error:
            request.notes.append(f"online store: {error!r}")
        finally:
            request.trace.add("store", began, time.perf_counter())
        request.stale = ("online_store",)
        return UserState(request.query.user_id)

    async def _retrieve(self, names: tuple[str, ...], query: Query, user: User, trace: Trace) -> Brought:
        if self._remote_retrieval is None:
            return await self._on_compute(lambda: self.retrieval.retrieve(names, query, user, trace))
        began = time.perf_counter()
        try:
            return dict(await self._remote_retrieval.retrieve(names, query, user))
        except Exception as error:
            return dict.fromkeys(names, f"retrieval runner: {error!r}")
        finally:
            trace.add("retrieval." + "+".join(names), began, time.perf_counter())

    async def _remote_scores(self, rows: NDArray[np.float32] | None, trace: Trace) -> Given:
        """Scores from runners elsewhere, in the order of the chain, until one has answered."""
        given: dict[str, NDArray[np.float32] | str] = {}
        if rows is None:
            return given
        calls = (
            ("dcn", None if self._remote_ranking is None else self._remote_ranking.score),
            ("logistic", None if self._remote_fallback is None else self._remote_fallback.light),
        )
        for name, call in calls:
            if call is None:
                if any(scorer.name == name and scorer.ready for scorer in self.scorers):
                    break  # the next in the chain is here
                continue
            began = time.perf_counter()
            try:
                given[name] = await call(rows)
            except Exception as error:
                given[name] = f"runner: {error!r}"
            trace.add(f"runner.{name}", began, time.perf_counter())
            if not isinstance(given[name], str):
                break
        return given

    def _names(self, *, needs_session: bool) -> tuple[str, ...]:
        if self._remote_retrieval is None:
            return self.retrieval.names(needs_session=needs_session)
        # A remote runner is asked for all of them; it names those that it lacks.
        return tuple(name for name in SOURCES if (name in compose.NEED_SESSION) is needs_session)

    async def _on_compute(self, work: Any) -> Any:
        if self._compute is None:
            return work()
        return await self._compute(work)

    # --- the stages, on the compute thread ---------------------------------------------------------------------------

    def _finish(self, request: _Request, user: User) -> tuple[Slate, Candidates]:
        """The second hop: what needs the session, then all that follows."""
        if time.perf_counter() > request.query.deadline:
            raise TimeoutError  # nobody waits for it any more
        late = self.retrieval.names(needs_session=True)
        request.add(self.retrieval.retrieve(late, request.query, user, request.trace))
        return self._conclude(request, user, self._union(request, user), {}, None)

    def _union(self, request: _Request, user: User) -> Candidates:
        with request.trace.stage("merge"):
            candidates = self._merge(request.brought)
            request.union = len(candidates)
        with request.trace.stage("filter"):
            candidates, request.dropped, notes = keep_allowed(self.filters, request.query, user, candidates)
        request.notes += notes
        if not len(candidates):
            raise LookupError("no candidates")
        return candidates

    def _with_rows(self, request: _Request, user: User) -> tuple[Candidates, NDArray[np.float32] | None]:
        candidates = self._union(request, user)
        try:
            with request.trace.stage("rows"):
                return candidates, self.rows(request.query, user, candidates)
        except Exception as error:
            request.notes.append(f"ranking rows: {error!r}")
            return candidates, None

    def _conclude(
        self, request: _Request, user: User, candidates: Candidates, given: Given, rows: NDArray[np.float32] | None
    ) -> tuple[Slate, Candidates]:
        query, trace = request.query, request.trace
        made = rows

        def rows_once() -> NDArray[np.float32]:
            nonlocal made
            if made is None:
                with trace.stage("rows"):
                    made = self.rows(query, user, candidates)
            return made

        with trace.stage("rank"):
            reserve_s = 0.0 if math.isinf(query.deadline) else 2e-3
            ranked, ranked_by, notes = rank(
                self.scorers, candidates, rows_once, given=given, deadline=query.deadline - reserve_s
            )
        request.notes += notes
        with trace.stage("rerank"):
            shown, decisions = self._rerank(request, ranked, self.rerankers)
        if self.models.retrieval is not None:
            view = self.items.at(query.now_us)
            request.stale += view.stale
            request.used = (*user.used, *view.used)
        slate = self._slate(request, user, shown, ranked_by, decisions)
        return (
            replace(
                slate,
                candidates=IdsBySource(
                    self.models.catalogue.item_ids, {name: result.items for name, result in request.brought.items()}
                ),
                top=top_of(self.models.catalogue.item_ids, ranked),
                digest=digest_of(ranked),
            ),
            shown,
        )

    def _merge(self, brought: Mapping[str, SourceResult]) -> Candidates:
        return merge(brought, self.config.quotas, self.config.total, self.config.agreement)

    def _rerank(
        self, request: _Request, ranked: Candidates, rerankers: Sequence[Reranker]
    ) -> tuple[Candidates, list[str]]:
        """The first k after all re-rankers. One that fails, or that loses candidates, is skipped by name."""
        decisions: list[str] = []
        for stage in rerankers:
            try:
                done = stage.rerank(request.query, ranked)
                if len(done.candidates) != len(ranked):
                    raise ValueError(f"{len(ranked)} candidates in, {len(done.candidates)} out")
            except Exception as error:
                request.notes.append(f"re-ranker {stage.name} skipped: {error!r}")
                continue
            ranked = done.candidates
            decisions += [f"{stage.name}: {decision}" for decision in done.decisions]
            request.notes += done.notes
        return ranked.take(np.arange(min(request.query.k, len(ranked)))), decisions

    def _slate(
        self, request: _Request, user: User, shown: Candidates, ranked_by: RankedBy, decisions: list[str]
    ) -> Slate:
        item_ids = self.models.catalogue.item_ids
        debug: dict[str, Any] | None = None
        if request.query.debug:
            debug = {
                "spans_ms": {name: [round(a, 3), round(b, 3)] for name, (a, b) in request.trace.spans.items()},
                "candidates": {name: len(result.items) for name, result in request.brought.items()},
                "union": request.union,
                "dropped": request.dropped,
                "decisions": decisions,
                "rules": self.rules.digest,
            }
        return Slate(
            item_ids=ids_of(item_ids, shown.items),
            scores=tuple(shown.score.tolist()),
            sources=source_names(shown.brought),
            degradation=rung(ranked_by, request.stale),
            ranked_by=ranked_by,
            stale=request.stale,
            notes=tuple(request.notes),
            stages_ms=request.trace.stages_ms,
            debug=debug,
            used=request.used or user.used,
        )

    # --- the lower rungs, on the event loop --------------------------------------------------------------------------

    def lowest(self, query: Query, state: UserState | None, why: str) -> Slate:
        """batch → cached → popularity, without the compute thread.

        Raises:
            Overloaded: not even popularity is there.
        """
        return self._lowest(_Request(query, state=state), why)

    def _lowest(self, failed: _Request, why: str) -> Slate:
        """A computation that was given up on may still be writing to `failed`: only what it had is taken over."""
        query, state = failed.query, failed.state
        notes = [*failed.notes, f"no computed slate: {why}"]
        request = _Request(query, failed.trace, state, failed.stale, notes=notes)
        user = self._hydrate.known(query)
        if state is not None:
            try:
                user = self._hydrate.resolve(query, user, state)
            except Exception as error:
                notes.append(f"hydrate: {error!r}")
        rungs: tuple[tuple[RankedBy, Callable[[], Candidates | None]], ...] = (
            ("batch", lambda: self._batch(state)),
            ("cached", lambda: self.lists.cached(query.user_id)),
            ("popularity", lambda: self._popular(query, user)),
        )
        for name, listed in rungs:
            try:
                with request.trace.stage(f"ladder.{name}"):
                    slate = self._from_list(request, user, name, listed())
            except Exception as error:
                notes.append(f"{name}: {error!r}")
                continue
            if slate is not None:
                return slate
        if not self.lists:
            raise Overloaded(f"nothing can be served: {why}, and there is no popularity list")
        notes.append("every item is excluded, seen or not allowed")
        return self._slate(request, user, self._merge({}), "popularity", [])

    def _batch(self, state: UserState | None) -> Candidates | None:
        listed = None if state is None else state.precomputed
        return None if listed is None else self.lists.batch(listed)

    def _popular(self, query: Query, user: User) -> Candidates:
        """At least k allowed items where there are so many; reads no further into the list than that asks for."""
        n = 2 * (query.k + len(query.exclude) + len(user.seen)) + 100
        while True:
            listed = self.lists.popularity(query, n)
            allowed = keep_allowed(self.filters, query, user, listed)[0]
            if len(allowed) >= query.k or len(listed) < n:
                return listed
            n *= 8

    def _from_list(self, request: _Request, user: User, ranked_by: RankedBy, listed: Candidates | None) -> Slate | None:
        """None: there is no such list, or nothing of it may be shown. A short one is filled from popularity."""
        query = request.query
        if listed is None:
            return None
        allowed, request.dropped, notes = keep_allowed(self.filters, query, user, listed)
        request.notes += notes
        if not len(allowed):
            return None
        if len(allowed) < query.k and ranked_by != "popularity":
            more = keep_allowed(self.filters, query, user, self._popular(query, user))[0]
            allowed = followed_by(allowed, more)
        # Lists of the batch and cached rungs had their promotion when they were made.
        rerankers = [r for r in self.rerankers if r.name != "promote" or ranked_by == "popularity"]
        shown, decisions = self._rerank(request, allowed, rerankers)
        slate = self._slate(request, user, shown, ranked_by, decisions)
        return replace(slate, sources=tuple(names or ("popularity",) for names in slate.sources))

    # --- evaluation, batch, replay -----------------------------------------------------------------------------------

    def run(self, query: Query, state: UserState) -> Slate:
        """The same stages in order, in this thread, without budgets when `query.deadline` is infinite."""
        request = _Request(query, state=state)
        try:
            user = self._gather(request, state)
            return self._conclude(request, user, self._union(request, user), {}, None)[0]
        except Exception as error:
            return self._lowest(request, repr(error))

    def candidates(self, query: Query, state: UserState) -> tuple[User, Candidates]:
        """The union of all sources as the ranker gets it: at most `config.total`, filtered, by merged score."""
        request = _Request(query, state=state)
        user = self._gather(request, state)
        union = self._merge(request.brought)
        return user, keep_allowed(self.filters, query, user, union)[0]

    def source_candidates(self, query: Query, state: UserState, n: int) -> dict[str, SourceResult]:
        """The first `n` of each source by itself.

        Raises:
            ArtifactError: a source failed.
        """
        user = self._hydrate.resolve(query, self._hydrate.known(query), state)
        brought = self.retrieval.retrieve(self.retrieval.sources, query, user, n=n)
        results: dict[str, SourceResult] = {}
        for name, result in brought.items():
            if isinstance(result, str):
                raise ArtifactError(f"source {name}: {result}")
            results[name] = result
        return results

    def rows(self, query: Query, user: User, candidates: Candidates) -> NDArray[np.float32]:
        """What the rankers read, float32 [K, F].

        Raises:
            ArtifactError: the retrieval models are not there.
        """
        loaded = self.models.retrieval
        if loaded is None:
            raise ArtifactError("no retrieval models to make rows from")
        known = loaded.graph_users is not None and user.row >= 0
        return ranking_rows(
            items=candidates.items,
            retrieval=candidates.retrieval,
            by_source=candidates.by_source,
            history=user.history,
            history_age_h=user.history_age_h,
            features=user.features,
            context=query.context,
            now_us=query.now_us,
            catalogue=self.models.catalogue,
            block=self.items.at(query.now_us).block,
            item_embeddings=loaded.embeddings,
            brought=candidates.brought,
            query_embedding=candidates.vector,
            graph_items=loaded.graph_items,
            graph_user=loaded.graph_users[user.row] if known and loaded.graph_users is not None else None,
            n_seen=len(user.seen),
        )

    def _gather(self, request: _Request, state: UserState) -> User:
        """The user, and what all sources brought. The early ones know the user as while the store is read."""
        query, trace = request.query, request.trace
        known = self._hydrate.known(query)
        request.add(self.retrieval.retrieve(self.retrieval.names(needs_session=False), query, known, trace))
        with trace.stage("hydrate"):
            user = self._hydrate.resolve(query, known, state)
        request.stale = user.stale
        request.add(self.retrieval.retrieve(self.retrieval.names(needs_session=True), query, user, trace))
        return user

    # --- upkeep ------------------------------------------------------------------------------------------------------

    def set_items(self, snapshot: ItemSnapshot) -> None:
        """Use these item features from now on. On any thread: a pass over the catalogue, then a swap."""
        self.items.set(snapshot, self.models.now_us())

    def warm(self) -> None:
        """Two requests through everything, so that the first real one does not pay for first uses."""
        for user_id in ("", "\x01 nobody"):
            query = Query("", user_id, 20, self.models.now_us(), math.inf)
            self.run(query, UserState(user_id))

    def status(self) -> dict[str, Any]:
        """For readiness: what is missing and the best rung that can be reached."""
        ranker = self.models.ranker is not None or self._remote_ranking is not None
        some = bool(self.retrieval.sources) or self._remote_retrieval is not None
        best = ("full" if ranker else "simple_ranking") if some else "popularity"
        return {"problems": dict(self.models.problems), "best": best, "provider": self.models.provider}


def _noticed(task: "asyncio.Future[Any]") -> None:
    """Take note of an error that nobody will await: the request may have ended before."""
    if not task.cancelled():
        task.exception()


def _seconds(seconds: float) -> float | None:
    return None if math.isinf(seconds) else max(0.0, seconds)
