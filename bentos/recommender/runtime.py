"""One serving process: what it holds from start to drain, and the three things it does for the entry."""

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from bentos.recommender import device, side_effects
from bentos.recommender.admission import AdmissionPolicy
from bentos.recommender.breaker import STATES, Breaker, dependency, guarded
from bentos.recommender.bundles import Pinned
from bentos.recommender.components import away, exposures, part
from bentos.recommender.compose import FunnelConfig
from bentos.recommender.compute import Compute
from bentos.recommender.front import Front, Overridden, facts
from bentos.recommender.funnel import Funnel
from bentos.recommender.health import (
    GAUGE,
    READY,
    Change,
    Component,
    Phase,
    Readiness,
    best_rung,
    status,
    with_breakers,
)
from bentos.recommender.live import LiveCatalogue
from bentos.recommender.load import Load
from bentos.recommender.mending import Mending
from bentos.recommender.metrics import Metrics
from bentos.recommender.models import Models
from bentos.recommender.prewarm import prewarm, queries
from bentos.recommender.reads.choose import user_reads
from bentos.recommender.recorder import Recorder, kept
from bentos.recommender.request_ids import new_request_id
from bentos.recommender.rules import default_rules
from bentos.recommender.rungs import Rungs
from bentos.recommender.statistics import Statistics
from bentos.recommender.types import Query, Slate
from bentos.recommender.upkeep import Upkeep
from bentos.recommender.wire import RemoteRetrieval, RemoteScorer
from bentos.telemetry.contexts import ContextLog
from bentos.telemetry.exposures import ExposureLog
from bentos.telemetry.intake import EventIntake
from bentos.telemetry.states import keep_snapshot
from contracts.errors import DataError, Overloaded, StreamRecError
from contracts.exposures import ContextRecord, States, Versions
from contracts.http import EventsAccepted, FrontFacts, ItemsChanged, RecommendationRequest
from contracts.live_items import ItemChange
from contracts.rules import RulesDocument
from contracts.serving import DEGRADATIONS, Aim
from contracts.settings import Settings
from contracts.user_keys import UserKeys
from features.online.base import OnlineStore
from features.online.open import open_replica, open_store
from features.registry import REGISTRY

if TYPE_CHECKING:
    from bentos.recommender.tracing import Tracing

log = logging.getLogger("streamrec.serving")
REFRESH_S = 3.0
LOOK_S = 1.0
CATALOGUE_S = 0.25  # between looks at the live catalogue
CONSUMER_S = 1.0  # between looks whether there is a consumer
FOLLOW_S = 0.1  # between looks whether new models are to be made
RUNNERS_S = 0.25
RUNNERS_START_S = 20.0
NO_ITEMS = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class Remotes:
    """The runners of the distributed topology."""

    retrieval: RemoteRetrieval
    ranking: RemoteScorer
    fallback: RemoteScorer

    @property
    def all(self) -> "tuple[RemoteRetrieval | RemoteScorer, ...]":
        return self.retrieval, self.ranking, self.fallback

    async def ask_status(self) -> None:
        await asyncio.gather(*(runner.ask_status() for runner in self.all))


@dataclass(frozen=True, slots=True)
class Answer:
    query: Query
    slate: Slate
    exclude: list[str]
    began: float  # perf_counter seconds
    versions: Versions
    states: States
    funnel: Funnel
    front: Front | None = None
    facts: FrontFacts | None = None  # for a gateway


class Runtime:
    """`start` before the first request, `drain` when `/readyz` must go false, `close` at the end.

    Everything here runs on one event loop; native work goes through `compute`.
    """

    def __init__(
        self,
        settings: Settings,
        pins: Pinned,
        models: Models,
        remotes: Remotes | None = None,
        again: Callable[..., Models] | None = None,
    ) -> None:
        """again: loads the models once more, as their files have changed; see `Mending`."""
        self.settings = settings
        self.metrics = Metrics()
        self.phase: Phase = "loading"
        self.bento = pins.bento
        self._pins = pins
        self._remotes = remotes
        self._rules, self._rules_problem = _rules(settings.rules)
        self._compute = Compute()
        self._store: OnlineStore = open_store(settings)
        self._replica = open_replica(settings)
        self._reads = user_reads(settings, self._store, self._replica)
        # Another one for the background, as one connection belongs to one thread; the in-memory store is itself both.
        self._snapshots = self._store if settings.online_store == "memory" else open_store(settings)
        self._upkeep = Upkeep(
            LiveCatalogue(settings.home, models),
            Statistics(settings.home),
            Mending(again, pins.folders) if again else None,
            self._snapshots,
            partial(kept, keep_snapshot, settings.home),
            self._make_funnel,
            self._swapped,
        )
        policy = AdmissionPolicy(
            patience_s=settings.patience_ms / 1e3,
            deadline_s=(settings.deadline_ms - settings.assembly_budget_ms) / 1e3,
            thin_below=settings.thin_below,
        )
        self._load = Load(self._compute, policy, settings.aim)
        self.funnel.thin = self._load.thin
        keys = UserKeys.of(settings.user_keys)
        hide = keys.hide if keys else None
        self._exposures = ExposureLog(settings.home, hide=hide)
        self._contexts = ContextLog(
            settings.home,
            settings.log_contexts,
            rows_share=settings.log_rows,
            candidates_share=settings.log_candidates,
            hide=hide,
        )
        self._recorder = Recorder(settings, self._contexts, self._upkeep)
        self._events = EventIntake(settings.home, settings.online_store, settings.event_log, self.metrics.events)
        self.tracing = _tracing(settings, pins.bento)
        self._rungs = Rungs(self._rung_changed)
        self._events.about = self._reads.forget
        self._events_breaker = Breaker(dependency(settings.breaker_open_s))
        self._tasks: list[asyncio.Task[None]] = []
        self._swapped()

    @property
    def models(self) -> Models:
        return self._upkeep.models

    @property
    def funnel(self) -> Funnel:
        return self._upkeep.funnel

    def _make_funnel(self, models: Models) -> Funnel:
        settings, remotes = self.settings, self._remotes
        return Funnel(
            models,
            self._rules,
            config=FunnelConfig(budgets=settings.budgets, breaker=dependency(settings.breaker_open_s)),
            compute=self._compute,
            remote_retrieval=remotes.retrieval if remotes else None,
            remote_ranking=remotes.ranking if remotes else None,
            remote_fallback=remotes.fallback if remotes else None,
        )

    def _swapped(self) -> None:
        """The upkeep has other models or items."""
        self._overridden = Overridden(self.funnel)
        self._versions = self._versions_now()

    async def start(self) -> None:
        """Warm everything up, then say ready. Never fails for a part that is away: `/readyz` names it."""
        await self._events.start()
        await self._runners_answer()
        await self._refresh()
        try:
            await self._warm()
        except Exception:
            log.exception("the warm-up failed; the first requests will be slow")
        self._tasks = [
            asyncio.create_task(self._forever(REFRESH_S, self._refresh)),
            asyncio.create_task(self._forever(LOOK_S, self._look)),
            asyncio.create_task(self._forever(REFRESH_S, self._upkeep.mend)),
            asyncio.create_task(self._forever(CATALOGUE_S, self._upkeep.look_at_catalogue)),
            asyncio.create_task(self._forever(FOLLOW_S, self._upkeep.follow_catalogue)),
        ]
        if self.settings.shares_a_catalogue:  # the consumer brings what other machines change: one must be there
            self._tasks.append(asyncio.create_task(self._forever(CONSUMER_S, self._events.start)))
        if self._remotes:
            self._tasks.append(asyncio.create_task(self._forever(RUNNERS_S, self._remotes.ask_status)))
        self._load.watch()
        self.phase = "serving"
        ready = self.readiness()
        log.info("serving %s: %s", self.bento, ready.status)
        for name, component in ready.components.items():
            if component.state != "healthy":
                log.warning("%s is %s: %s", name, component.state, component.detail)

    def drain(self) -> None:
        """`/readyz` goes false; requests that come are still answered."""
        self.phase = "draining"

    async def close(self) -> None:
        """After the last request: flush the logs and let go of everything."""
        self.phase = "stopped"
        self._load.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._events.close()
        await asyncio.to_thread(self._exposures.close)
        await asyncio.to_thread(self._contexts.close)
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
        self._upkeep.live.close()
        for store in {id(s): s for s in (self._store, self._snapshots, self._replica) if s}.values():
            store.close()
        self._compute.close()

    def admit(self, began: float, front: Front | None, within_ms: float | None = None) -> Aim:
        """The rung to start at, by the load. `left` has to follow.

        Raises:
            Overloaded: there is room on none.
        """
        if front and front.rung == "popularity":
            return "lists"
        whole_s = self._whole_ms(front, within_ms) / 1000
        try:
            aim = self._load.aim(began, began + whole_s - time.perf_counter())
        except Overloaded:
            self.metrics.admitted.add("refused")
            raise
        self.metrics.admitted.add(aim)
        return aim

    def left(self, aim: Aim) -> None:
        """A request that was admitted there waits for nothing any more."""
        self._load.done(aim)

    def _whole_ms(self, front: Front | None, within_ms: float | None) -> float:
        """The deadline, which whoever asks can only shorten."""
        asked_ms = front.deadline_ms if front else within_ms
        return self.settings.deadline_ms if asked_ms is None else min(self.settings.deadline_ms, max(asked_ms, 0.0))

    async def recommend(
        self,
        request: RecommendationRequest,
        request_id: str,
        began: float,
        front: Front | None = None,
        aim: Aim = "full",
        within_ms: float | None = None,
    ) -> Answer:
        """From the best rung that works. front: a gateway asks, so its id, its deadline and its overrides hold.
        within_ms: what a consumer would wait.

        Raises:
            BadRequest: overrides that are none. Overloaded: not even the last rung has anything.
        """
        if not self._upkeep.live.loaded:  # what was taken down is not known
            raise Overloaded("the live catalogue cannot be read")
        states, versions = self._recorder.states(), self._versions  # as it begins: others may come meanwhile
        funnel, sources_off = self._overridden.by(front.overrides) if front else (self.funnel, ())
        query = Query(
            request_id=front.request_id if front else request_id,
            user_id=request.user_id,
            k=request.k,
            now_us=self.models.now_us(),
            deadline=began + self._whole_ms(front, within_ms) / 1000,
            context=request.context,
            exclude=self._rows(request.exclude),
            debug=request.debug,
            sources_off=sources_off,
            shadow=front is not None and front.shadow,
            aim=aim,
        )
        try:
            if front and front.rung == "popularity":
                slate = funnel.popularity(query)
            else:
                slate = await funnel.recommend(query, self._reads)
        except StreamRecError:
            raise
        except Exception:  # a fault of ours costs quality, not the answer
            self.metrics.errors.labels("funnel").inc()
            log.exception("request %s: the funnel failed; a lower rung answers", request_id)
            slate = funnel.lowest(query, None, "the funnel failed")
        if funnel.rules is not self._rules:
            versions = msgspec.structs.replace(versions, rules=funnel.stages.rules_digest)
        told = facts(query, slate, self.models, self._recorder.states_of(slate, states)) if front else None
        return Answer(query, slate, request.exclude, began, versions, states, funnel, front, told)

    def record(self, answer: Answer, traceparent: bytes | None = None) -> None:
        """Off the response path: metrics, exposure, context. The exposure of a gateway's request is the gateway's."""
        slate = answer.slate
        seconds = time.perf_counter() - answer.began
        self.metrics.served(slate.degradation, slate.ranked_by, seconds, slate.stages_ms, slate.stale)
        self._load.learn(slate)
        self._rungs.answered(slate, answer.query.aim)
        if answer.front is None:
            states = self._recorder.states_of(slate, answer.states)
            self._exposures.append(side_effects.exposure(answer.query, slate, answer.versions, states))
        self._recorder.record(answer)
        if self.tracing is not None:
            self.tracing.record(answer.query, slate, answer.began, traceparent)

    async def accept_events(self, body: bytes) -> EventsAccepted:
        return await guarded(self._events_breaker, "the event log", lambda: self._events.accept(body))

    async def change_items(self, changes: Sequence[ItemChange]) -> ItemsChanged:
        return await self._events.change(changes)

    async def find_context(self, request_id: str) -> ContextRecord | None:
        return await asyncio.to_thread(self._contexts.find, request_id)

    def readiness(self) -> Readiness:
        components, breakers = self._components(), self._breakers()
        best = str(self.funnel.status()["best"])
        if best == "full" and breakers["ranking"].state == "open":
            best = "simple_ranking"
        provider = self.models.provider
        if self._remotes:
            ranking = self._remotes.ranking
            provider = str(ranking.status.get("provider", ""))
            if best == "full" and (ranking.problem or components["ranking"].state == "unhealthy"):
                best = "simple_ranking"
            if components["retrieval"].state == "unhealthy":
                best = "popularity"
        stale_items = self.funnel.stages.items.stale_at(self.models.now_us()) if self.models.retrieval else ()
        best = best_rung(best, components["online_store"], stale_items)
        return Readiness(
            status=status(self.phase, components),
            phase=self.phase,
            components=components,
            best=best,
            rung=self._rungs.rung,
            changes=self._rungs.changes,
            breakers={name: breaker.state for name, breaker in breakers.items()},
            topology=self.settings.topology,
            device=device.described(self.settings.device, provider),
            bento=self.bento,
            models=dict(self._pins.versions.items()),
            rules=self._rules.digest,
            pid=os.getpid(),
        )

    def observe(self) -> None:
        """Set the gauges, for a scrape."""
        self.metrics.flush()
        components = self._components()
        self.metrics.ready.set(READY[status(self.phase, components)])
        for name, component in components.items():
            self.metrics.health.labels(name).set(GAUGE[component.state])
        for name, breaker in self._breakers().items():
            self.metrics.breaker.labels(name).set(STATES[breaker.state])
        self.metrics.take_over(self.metrics.reads, self._reads.counts)
        for not_begun in (self.funnel.not_begun, self._compute.not_begun):
            self.metrics.take_over(self.metrics.not_begun, not_begun)
        if (published_us := self.funnel.published_us) is not None:
            self.metrics.batch_age.set((self.models.now_us() - published_us) / 1e6)
        self.metrics.queue.set(self._compute.waiting)
        self.metrics.rung.set(DEGRADATIONS.index(self._rungs.rung))
        self.metrics.lag.set(self._load.admission.lag_s)
        for of in ("answered", "read"):
            self.metrics.shares.labels(of).set(getattr(self._load.admission, of))
        for name, counts in (("exposures", self._exposures.counts()), ("contexts", self._contexts.counts())):
            for state in ("written", "dropped", "errors", "queued"):
                self.metrics.records.labels(name, state).set(getattr(counts, state))
        if self._remotes:
            for runner in self._remotes.all:
                self.metrics.take_over(self.metrics.calls, runner.counts, runner.name)
            for count in ("batches", "rows", "largest"):
                self.metrics.ranking.labels(count).set(self._remotes.ranking.status.get(count, 0))
        for kind, version in self._pins.versions.items():
            self.metrics.info.labels(self.bento, kind, version).set(1)

    def _components(self) -> dict[str, Component]:
        problems: dict[str, str] = {**self._upkeep.gone, **self.models.problems}
        problems.update(self._pins.problems.items())
        components = {name: part(name, problems, self._remote(name)) for name in ("retrieval", "ranking", "fallback")}
        components["catalogue"] = self._upkeep.live.component
        components["statistics"] = self._upkeep.statistics.component
        components["online_store"] = away(self._upkeep.store_problem)
        components["events"] = away(self._events.problem)
        components["exposures"] = exposures(self._exposures.healthy, self._exposures.counts())
        components["rules"] = (
            Component("degraded", self._rules_problem) if self._rules_problem else Component("healthy")
        )
        return with_breakers(components, self._breakers())

    def _breakers(self) -> dict[str, Breaker]:
        """Of all that this process depends on, by the component that it is."""
        found = {**self._reads.breakers, "events": self._events_breaker}
        if self._remotes:
            return found | {runner.name.lower(): runner.breaker for runner in self._remotes.all}
        ranking, fallback, *_ = self.funnel.stages.scorers
        of = self.funnel.stages.breakers
        return found | {"ranking": of[ranking.name], "fallback": of[fallback.name]}

    def _remote(self, part: str) -> RemoteRetrieval | RemoteScorer | None:
        return getattr(self._remotes, part) if self._remotes else None

    def _rows(self, item_ids: list[str]) -> Any:
        if not item_ids:
            return NO_ITEMS
        rows = self.models.index.lookup_many(item_ids)
        return rows[rows >= 0]

    def _versions_now(self) -> Versions:
        versions = self._pins.versions
        return Versions(
            bento=self.bento,
            retrieval=versions["retrieval"],
            ranking=versions["ranking"],
            fallback=versions["fallback"],
            rules=self._rules.digest,
            features=REGISTRY.hash,
            item_snapshot=self._upkeep.snapshot or "",
        )

    async def _forever(self, every_s: float, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(every_s)
            with contextlib.suppress(Exception):  # each step reports its own troubles
                await step()

    async def _runners_answer(self) -> None:
        """Wait for the other processes, which start beside this one; one that does not come is left to `/readyz`."""
        until = time.monotonic() + RUNNERS_START_S
        while self._remotes and time.monotonic() < until:
            await self._remotes.ask_status()
            if not any(runner.problem for runner in self._remotes.all):
                return
            await asyncio.sleep(0.05)

    async def _warm(self) -> None:
        await self._compute(self.funnel.warm)
        if self._remotes:  # the sessions over there have not run yet
            for _ in range(3):
                query = Query(new_request_id(), "", 1, self.models.now_us(), math.inf)
                await asyncio.wait_for(self.funnel.recommend(query, self._store), RUNNERS_START_S)
        await prewarm(self.funnel, self._store, queries(self.models))

    async def _look(self) -> None:
        ready = self.readiness()
        self._rungs.look(ready.best, ready.components, time.time())
        self.metrics.flush()  # a scrape of another worker reads what this one last told

    def _rung_changed(self, change: Change) -> None:
        self.metrics.changes.labels(change.before, change.rung, change.cause).inc()
        better = change.cause == "recovered"
        fields = {"event": "rung_change", **msgspec.to_builtins(change)}
        what = f"{change.before} → {change.rung}, {change.cause}" + (f": {change.detail}" if change.detail else "")
        log.log(logging.INFO if better else logging.WARNING, "rung %s", what, extra={"fields": fields})

    async def _refresh(self) -> None:
        try:
            await self._upkeep.refresh_items()
        finally:
            self.observe()  # a scrape of another worker reads what this one last set


def _rules(path: Path | None) -> tuple[RulesDocument, str]:
    """A document that cannot be read must not stop the service: the one in the Bento holds, and `/readyz` says so."""
    if path is None:
        return default_rules(), ""
    try:
        return RulesDocument.read(path), ""
    except DataError as error:
        log.error("%s; the rules document of the Bento holds", error.message)
        return default_rules(), error.message


def _tracing(settings: Settings, bento: str) -> "Tracing | None":
    if settings.traces == "off":
        return None
    from bentos.recommender.tracing import Tracing  # 60 ms and 9 MB that most services do without

    return Tracing(settings.traces, settings.trace_share, bento)
