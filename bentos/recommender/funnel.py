"""The request path: one line a stage.

    hydrate → sources → merge → filter → rank → re-rank → slate

`recommend` serves: the store is read while the sources that need no session run, then the rest runs in a second hop on
the compute thread. `run` is the same stages one after another, for evaluation, batch and replay. Where a full answer
is not to be had in time, `lowest` answers from lists that are there already.
"""

import asyncio
import copy
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bentos.recommender import compose
from bentos.recommender.compose import FunnelConfig
from bentos.recommender.following import brought_within
from bentos.recommender.inflight import InFlight, NotBegun
from bentos.recommender.ladder import Ladder
from bentos.recommender.lists import Lists
from bentos.recommender.models import Models
from bentos.recommender.ranking import NOT_ASKED, Given
from bentos.recommender.remote import Compute, RemoteFallback, RemoteRanking, RemoteRetrieval
from bentos.recommender.retrieval import Brought
from bentos.recommender.stages import Stages
from bentos.recommender.types import Candidates, Query, Slate, SourceResult, User
from contracts.errors import ArtifactError
from contracts.rules import RulesDocument
from contracts.serving import SOURCES, UNRANKED
from features.online.base import ItemSnapshot, UserState

T = TypeVar("T")
LIGHT_SHARE = 0.3  # of the time for ranking, kept for the light ranker where both are in processes of their own
NO_RULES = RulesDocument(
    version="none", category_cap=None, fresh_floor=0, creator_floor=0, promoted_boost=1.0, suppress_seen=True
)


class UserReader(Protocol):
    """A store, or what guards one (`reads/`)."""

    async def read_user(self, user_id: str) -> UserState: ...


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
        self.stages = Stages(models, self.rules, self.config)
        self._lists = Lists(models, self.config.cached_slates)
        self._ladder = Ladder(self.stages, self._lists)
        self.not_begun: Counter[str] = Counter()  # stages that nobody waited for any more
        self._compute = compute
        self._remote_retrieval = remote_retrieval
        self._remote_ranking = remote_ranking
        self._remote_fallback = remote_fallback
        # Asked once a user's features are known: why the deep ranker is not worth its time, empty where it is.
        self.thin: Callable[[User], str] = lambda user: ""

    # --- serving -----------------------------------------------------------------------------------------------------

    async def recommend(self, query: Query, store: UserReader) -> Slate:
        """The best slate that can be had before `query.deadline`.

        Raises:
            Overloaded: not even popularity is there.
        """
        began = time.perf_counter()
        if query.aim in UNRANKED:
            flight = InFlight(query)
            if query.aim == "lists":
                if getattr(store, "waits", True):
                    flight.plan = self.config.budgets.plan(began, query.deadline)
                await self._read(flight, store)
            return self._ladder.lowest(flight, f"the aim is {query.aim}")
        plan = self.config.budgets.plan(began, query.deadline)
        flight = InFlight(query, plan=plan, not_begun=self.not_begun)
        try:
            async with asyncio.timeout(_seconds(plan.answer_at - began)):
                slate, kept = await self._serve(flight, store)
        except (TimeoutError, NotBegun):
            why = "the deadline passed"
        except Exception as error:
            why = repr(error)
        else:
            if not query.shadow:
                self._lists.remember(query.user_id, kept, self.stages.rules_digest)
            return slate
        finally:
            flight.given_up = True  # what the compute thread still has of it stops before its next stage
        return self._ladder.lowest(flight, why)

    async def _serve(self, flight: InFlight, store: UserReader) -> tuple[Slate, Candidates]:
        query, plan = flight.query, flight.plan
        known = self.stages.hydrate.known(query)
        if query.sources_off:
            flight.notes.append(f"switched off: {', '.join(query.sources_off)}")
        here = self._remote_retrieval is None and self._remote_ranking is None and self._remote_fallback is None
        if here and not getattr(store, "waits", True):
            # There is no wait to fill with the early sources, and a hop saved is a tenth of the loop's work.
            await self._read(flight, store)
            user = self._hydrated(flight, known)
            return await self._on_compute(lambda: self.stages.one_hop(flight, known, user))
        early_names = self._names(query, needs_session=False)
        early = asyncio.ensure_future(self._retrieve(early_names, flight, known))
        early.add_done_callback(_noticed)
        try:
            await self._read(flight, store)
            user = self._hydrated(flight, known)
            query = flight.query
            try:
                async with asyncio.timeout(_seconds(plan.retrieval_until - time.perf_counter())):
                    flight.add(await early)
            except TimeoutError:
                flight.add(dict.fromkeys(early_names, "late: not back when the rest had to start"))
        finally:
            early.cancel()
        if here:
            return await self._on_compute(lambda: self.stages.second_hop(flight, user), begun=True)
        flight.add(await self._retrieve(self._names(query, needs_session=True), flight, user))
        candidates, rows = await self._on_compute(lambda: self._with_rows(flight, user), begun=True)
        given = await self._remote_scores(rows, flight)
        return await self._on_compute(lambda: self.stages.conclude(flight, user, candidates, rows, given), begun=True)

    def _hydrated(self, flight: InFlight, known: User) -> User:
        """The user with what was read; one of whom too little is known may not be worth the deep ranker."""
        query = flight.query
        with flight.trace.stage("hydrate"):
            user = self.stages.hydrate.resolve(query, known, flight.state or UserState(query.user_id))
        flight.stale = user.stale or flight.stale
        if query.aim == "full" and (why := self.thin(user)):
            flight.query = replace(query, aim="simple_ranking")
            flight.notes.append(why)
        return user

    async def _read(self, flight: InFlight, store: UserReader) -> None:
        """One round trip. A store that is away or late costs the user's features, not the answer."""
        began, plan, user_id = time.perf_counter(), flight.plan, flight.query.user_id
        try:
            if getattr(store, "waits", True):
                async with asyncio.timeout(_seconds(min(plan.read_s, plan.features_until - began))):
                    flight.state = await store.read_user(user_id)
            else:  # no timer could stop a read that never yields
                flight.state = await store.read_user(user_id)
            self._lists.noticed(flight.state.precomputed)
        except TimeoutError:
            flight.notes.append("online store: late")
            flight.stale = ("online_store",)
        except Exception as error:
            flight.notes.append(f"online store: {error!r}")
            flight.stale = ("online_store",)
        finally:
            flight.trace.add("store", began, time.perf_counter())

    async def _retrieve(self, names: tuple[str, ...], flight: InFlight, user: User) -> Brought:
        query, trace, plan = flight.query, flight.trace, flight.plan
        if self._remote_retrieval is None:
            return await self._on_compute(
                lambda: self.stages.retrieval.retrieve(names, query, user, trace, limits=plan)
            )
        began = time.perf_counter()
        try:
            brought = dict(await self._remote_retrieval.retrieve(names, query, user, plan))
            return brought_within(brought, len(self.models.catalogue))
        except Exception as error:
            return dict.fromkeys(names, f"retrieval runner: {error!r}")
        finally:
            trace.add("retrieval." + "+".join(names), began, time.perf_counter())

    async def _remote_scores(self, rows: NDArray[np.float32] | None, flight: InFlight) -> Given:
        """Scores from runners elsewhere, in the order of the chain, until one has answered.

        The first must leave the light ranker its share of the time.
        """
        query, trace, until = flight.query, flight.trace, flight.plan.ranking_until
        given: dict[str, NDArray[np.float32] | str] = {}
        if rows is None:
            return given
        first_until = until
        if self._remote_fallback is not None and not math.isinf(until):
            first_until -= LIGHT_SHARE * max(until - time.perf_counter(), 0.0)
        calls = (
            (self.models.ranked_by, None if self._remote_ranking is None else self._remote_ranking.score),
            ("logistic", None if self._remote_fallback is None else self._remote_fallback.light),
        )
        for name, call in calls:
            if name in NOT_ASKED[query.aim]:
                continue
            if call is None:
                if any(scorer.name == name and scorer.ready for scorer in self.stages.scorers):
                    break  # the next in the chain is here
                continue
            began = time.perf_counter()
            try:
                given[name] = await call(rows, until if name == "logistic" else first_until)
            except Exception as error:
                given[name] = f"runner: {error!r}"
            trace.add(f"runner.{name}", began, time.perf_counter())
            if not isinstance(given[name], str):
                break
        return given

    def _names(self, query: Query, *, needs_session: bool) -> tuple[str, ...]:
        if self._remote_retrieval is None:
            names = self.stages.retrieval.names(needs_session=needs_session)
        else:  # a remote runner is asked for all of them; it names those that it lacks
            loaded = self.models.retrieval
            lacks = frozenset() if loaded is None else loaded.made_without
            names = tuple(n for n in SOURCES if n not in lacks and (n in compose.NEED_SESSION) is needs_session)
        return tuple(name for name in names if name not in query.sources_off) if query.sources_off else names

    async def _on_compute(self, work: Any, *, begun: bool = False) -> Any:
        if self._compute is None:
            return work()
        return await self._compute(work, begun=begun)

    def _with_rows(self, flight: InFlight, user: User) -> tuple[Candidates, NDArray[np.float32] | None]:
        candidates = self.stages.union(flight, user)
        if "logistic" in NOT_ASKED[flight.query.aim]:
            return candidates, None
        try:
            with flight.trace.stage("rows"):
                return candidates, self.stages.rows(flight.query, user, candidates, self.stages.view(flight))
        except Exception as error:
            flight.notes.append(f"ranking rows: {error!r}")
            return candidates, None

    def lowest(self, query: Query, state: UserState | None, why: str) -> Slate:
        """batch → cached → popularity, without the compute thread.

        Raises:
            Overloaded: not even popularity is there.
        """
        return self._ladder.lowest(InFlight(query, state=state), why)

    def popularity(self, query: Query) -> Slate:
        """The last rung, whatever else works: a gateway keeps it for the day when nothing does.

        Raises:
            Overloaded: there is no popularity list.
        """
        return self._ladder.popularity(InFlight(query))

    def under(self, rules: RulesDocument) -> "Funnel":
        """The same funnel under other rules; what users have seen last is shared."""
        other = copy.copy(self)
        other.rules = rules
        other.stages = self.stages.under(rules)
        other._ladder = Ladder(other.stages, self._lists)
        return other

    def over(
        self, models: Models, columns: Mapping[str, NDArray[np.float32]] | None = None, columns_us: int = 0
    ) -> "Funnel":
        """The same funnel over models that have come to know more: items, or in which order. On any thread: a pass over
        the catalogue. columns: item features, as of `columns_us`, that go before those of the snapshot.
        """
        other = copy.copy(self)
        other.models = models
        other.stages = self.stages.over(models, columns or {}, columns_us)
        other._lists = self._lists.over(models)
        other._ladder = Ladder(other.stages, other._lists)
        return other

    # --- evaluation, batch, replay -----------------------------------------------------------------------------------

    def run(self, query: Query, state: UserState) -> Slate:
        """The same stages in order, in this thread, without budgets when `query.deadline` is infinite."""
        plan = self.config.budgets.plan(time.perf_counter(), query.deadline)
        flight = InFlight(query, state=state, plan=plan)
        try:
            user = self.stages.gather(flight, state)
            candidates = self.stages.union(flight, user)
            slate, _ = self.stages.conclude(flight, user, candidates)
        except NotBegun:
            return self._ladder.lowest(flight, "the deadline passed")
        except Exception as error:
            return self._ladder.lowest(flight, repr(error))
        return slate

    def candidates(self, query: Query, state: UserState) -> tuple[User, Candidates]:
        """The union of all sources as the ranker gets it: at most `config.total`, filtered, by merged score."""
        flight = InFlight(query, state=state)
        user = self.stages.gather(flight, state)
        return user, self.stages.union(flight, user)

    def source_candidates(self, query: Query, state: UserState, n: int) -> dict[str, SourceResult]:
        """The first `n` of each source by itself.

        Raises:
            ArtifactError: a source failed.
        """
        user = self.stages.hydrate.resolve(query, self.stages.hydrate.known(query), state)
        brought = self.stages.retrieval.retrieve(self.stages.retrieval.sources, query, user, n=n)
        results: dict[str, SourceResult] = {}
        for name, result in brought.items():
            if isinstance(result, str):
                raise ArtifactError(f"source {name}: {result}")
            results[name] = result
        return results

    def rows(self, query: Query, user: User, candidates: Candidates) -> NDArray[np.float32]:
        """What the rankers read, float32 [K, F]."""
        return self.stages.rows(query, user, candidates)

    # --- upkeep ------------------------------------------------------------------------------------------------------

    def set_items(self, snapshot: ItemSnapshot) -> None:
        """Use these item features from now on. On any thread: a pass over the catalogue, then a swap."""
        self.stages.items.set(snapshot, self.models.now_us())

    def warm(self) -> None:
        """Requests through everything, so that the first real one does not pay for first uses."""
        for _ in range(3):
            self.run(Query("", "", 20, self.models.now_us(), math.inf), UserState(""))

    @property
    def published_us(self) -> int | None:
        """When the published lists were made, on the data set's clock; None: none has come by."""
        return self._lists.published_us

    def status(self) -> dict[str, Any]:
        """For readiness: what is missing and the best rung that can be reached."""
        ranker = self.models.ranker is not None or self._remote_ranking is not None
        some = bool(self.stages.retrieval.sources) or self._remote_retrieval is not None
        best = ("full" if ranker else "simple_ranking") if some else "popularity"
        return {"problems": dict(self.models.problems), "best": best, "provider": self.models.provider}


def _noticed(task: "asyncio.Future[Any]") -> None:
    """Take note of an error that nobody will await: the request may have ended before."""
    if not task.cancelled():
        task.exception()


def _seconds(seconds: float) -> float | None:
    return None if math.isinf(seconds) else max(0.0, seconds)
