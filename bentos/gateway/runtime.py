"""One gateway process: what it holds from start to drain, and what it does for the entry."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from bentos.catalogue.withheld import Withheld
from bentos.gateway import records
from bentos.gateway.answer import KEY, Answering, Ask, Given, Try
from bentos.gateway.last_resort import FILE, LastResort
from bentos.gateway.limits import Limits
from bentos.gateway.metrics import GatewayMetrics
from bentos.gateway.popularity import fetch
from bentos.gateway.readiness import (
    AddressReady,
    BentoReady,
    GatewayReadiness,
    TableState,
    bento_state,
    status,
)
from bentos.gateway.routes import NO_TABLE, NOBODY, Assigner, Routes
from bentos.gateway.shadow import Mirrored, Shadow
from bentos.gateway.upstream import Upstreams
from bentos.recommender.breaker import STATES
from bentos.recommender.health import Component, Phase
from bentos.telemetry.attempts import AttemptLog
from bentos.telemetry.contexts import find_context
from bentos.telemetry.exposures import ExposureLog
from bentos.telemetry.intake import EventIntake
from contracts.attempts import Compared
from contracts.errors import Refused
from contracts.exposures import ContextRecord
from contracts.http import EventsAccepted, ItemsChanged, RecommendationRequest
from contracts.live_items import ItemChange
from contracts.routing import Pass, RoutingTable
from contracts.settings import Settings
from contracts.user_keys import UserKeys

log = logging.getLogger("streamrec.gateway")

TABLE_S = 0.1  # how often a new table is looked for in memory; the file's watch has its own pace
CONSUMER_S = 1.0  # how often it is looked whether there is a consumer
CATALOGUE_S = 0.25  # how often the live catalogue is looked at
PROBE_S = 1.0
POPULARITY_S = 60.0
POPULARITY_AGAIN_S = 2.0  # while there is none of this champion
OBSERVE_S = 3.0
# Of the deadline: who gives less must not open breakers for all others. A Bento in order answers with half of it.
FAIR_SHARE = 0.5


class Routing(Protocol):
    """Where tables come from."""

    def current(self) -> tuple[Assigner, RoutingTable] | None: ...
    @property
    def problem(self) -> str | None: ...
    async def start(self) -> None: ...
    async def close(self) -> None: ...
    def open_pass(self, token: str, now_us: int) -> Pass: ...


class GatewayRuntime:
    """`start` before the first request, `drain` when `/readyz` must go false, `close` at the end.

    Everything runs on one event loop. No request waits for the table, the logs or the shadow.
    """

    def __init__(self, settings: Settings, routing: Routing) -> None:
        self.settings = settings
        self.metrics = GatewayMetrics()
        self.phase: Phase = "loading"
        self.limits = Limits()
        self.routes = Routes(NO_TABLE, NOBODY, name="")
        self._routing = routing
        self._applied: RoutingTable | None = None
        self._applied_at = 0.0
        self._table_problem: str | None = None
        self._deadline_s = settings.deadline_ms / 1000
        self._upstreams = Upstreams()
        self._last_resort = LastResort(settings.home / "run" / FILE)
        self._popularity_problem: str | None = None
        self._withheld = Withheld(settings.home)
        self._answering = Answering(self._upstreams, self._last_resort, settings.front_key)
        self._shadow = Shadow(self._answering, self.metrics, self._mirrored, self._deadline_s)
        keys = UserKeys.of(settings.user_keys)
        hide = keys.hide if keys else None
        self._exposures = ExposureLog(settings.home, hide=hide)
        self._attempts = AttemptLog(settings.home, hide=hide)
        self._events = EventIntake(settings.home, settings.online_store, settings.event_log, self.metrics.events)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Never fails for a part that is away: `/readyz` names it."""
        self._last_resort.load()
        await self._look_at_catalogue()
        await self._routing.start()
        self._take_table()
        self._shadow.start()
        await self._upstreams.probe()
        self._tasks = [
            asyncio.create_task(self._forever(TABLE_S, self._watch)),
            asyncio.create_task(self._forever(CATALOGUE_S, self._look_at_catalogue)),
            asyncio.create_task(self._forever(PROBE_S, self._upstreams.probe)),
            asyncio.create_task(self._forever(POPULARITY_AGAIN_S, self._capture)),
            asyncio.create_task(self._forever(OBSERVE_S, self._observe)),
            asyncio.create_task(self._events.start()),
        ]
        if self.settings.shares_a_catalogue:  # the consumer brings what other machines change: one must be there
            self._tasks.append(asyncio.create_task(self._forever(CONSUMER_S, self._events.start)))
        self.phase = "serving"
        log.info("serving table %s", self.routes.name or "none yet")

    def drain(self) -> None:
        """`/readyz` goes false; requests that come are still answered."""
        self.phase = "draining"

    async def close(self) -> None:
        self.phase = "stopped"
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._shadow.close()
        await self._routing.close()
        await self._events.close()
        self._withheld.close()
        self._upstreams.close()
        await asyncio.to_thread(self._exposures.close)
        await asyncio.to_thread(self._attempts.close)

    async def recommend(
        self,
        request: RecommendationRequest,
        body: bytes,
        request_id: str,
        tester: str | None,
        within_ms: float | None = None,
        traceparent: str | None = None,
    ) -> Given:
        """within_ms: what the consumer would wait; it can only shorten the deadline.

        Raises:
            Refused: a pass that is not ours or is over.
        """
        now_us = time.time_ns() // 1000
        pass_ = self._routing.open_pass(tester, now_us) if tester is not None else None
        within_s = self._deadline_s if within_ms is None else min(self._deadline_s, within_ms / 1e3)
        hurried = within_s < FAIR_SHARE * self._deadline_s
        ask = Ask(request, body, request_id, now_us, time.monotonic() + within_s, traceparent, hurried)
        return await self._answering.answer(self.routes, ask, pass_)

    @property
    def has_table(self) -> bool:
        return bool(self.routes.name)

    def record(self, given: Given, request: RecommendationRequest, body: bytes, seconds: float) -> None:
        """After the response: exposure, attempts, metrics, shadow. Never raises for a full log."""
        routes = given.routes
        release = routes.table.release
        answer, assigned = given.answer, given.assigned
        self._exposures.append(records.exposure(given))
        metrics = self.metrics
        metrics.latency.observe(seconds)
        metrics.served.labels(assigned.variant, answer.variant).inc()
        metrics.degradation.labels(answer.degradation).inc()
        if given.source is None:
            metrics.last_resorts.labels("none" if given.unserved else answer.degradation).inc()
        if assigned.variant != answer.variant and assigned.variant != "champion":
            metrics.failovers.labels(assigned.variant).inc()
        for one in given.tries:
            self._count(one, shadow=False)
            self._attempts.append(
                records.attempt(one, request, answer.request_id, assigned.unit, release, forced=assigned.forced)
            )
        if release is not None and routes is self.routes and not given.unserved:
            self._shadow.offer(routes, Ask(request, body, answer.request_id, given.began_us, 0.0), given)

    async def accept_events(self, body: bytes) -> EventsAccepted:
        return await self._events.accept(body)

    async def change_items(self, changes: Sequence[ItemChange]) -> ItemsChanged:
        return await self._events.change(changes)

    async def find_context(self, request_id: str) -> ContextRecord | None:
        return await asyncio.to_thread(find_context, self.settings.home, request_id)

    def readiness(self) -> GatewayReadiness:
        routes, now = self.routes, time.monotonic()
        upstreams = {}
        for tag, addresses in self._upstreams.bentos.items():
            urls = {
                a.url: AddressReady(
                    a.state, a.ejection.out(now), a.in_flight, a.detail or ("" if a.front else NO_FRONT)
                )
                for a in addresses
            }
            upstreams[tag] = BentoReady(bento_state(urls), urls)
        champion = routes.table.champion
        there = upstreams.get(champion.bento) if champion else None
        answers = bool(champion and there and there.state != "away" and routes.breakers[champion].state != "open")
        popular = self._last_resort.popular
        components = self._components(upstreams)
        return GatewayReadiness(
            status=status(self.phase, answers, popular is not None and bool(popular.items), components),
            phase=self.phase,
            champion=champion.bento if champion else None,
            release=routes.release_id or None,
            table=TableState(
                routes.name or None,
                round(now - self._applied_at, 1) if routes.name else None,
                self._routing.problem or self._table_problem,
            ),
            upstreams=upstreams,
            breakers=self._breakers(),
            last_resort={
                "popularity": len(popular.items) if popular else 0,
                "popularity_age_s": round(time.time() - popular.taken_us / 1e6, 1) if popular else None,
                "slates": len(self._last_resort.slates),
            },
            components=components,
            pid=os.getpid(),
        )

    def observe(self) -> None:
        """Set the gauges, for a scrape."""
        metrics, routes = self.metrics, self.routes
        metrics.flush()
        metrics.shadow_queue.set(self._shadow.waiting)
        metrics.table_bad.set(bool(self._routing.problem or self._table_problem))
        if routes.name:
            metrics.table_version.set(routes.table.version)
            metrics.table_age.set(time.monotonic() - self._applied_at)
        for name, state in self._breakers().items():
            metrics.breaker.labels(name).set(STATES[state])
        for name, counts in (("exposures", self._exposures.counts()), ("attempts", self._attempts.counts())):
            for state in ("written", "dropped", "errors", "queued"):
                metrics.records.labels(name, state).set(getattr(counts, state))

    def _breakers(self, routes: Routes | None = None) -> dict[str, str]:
        routes = routes or self.routes
        found = {t.bento + (f"+{t.rules}" if t.rules else ""): b.state for t, b in routes.breakers.items()}
        if routes.table.release is not None:
            found["shadow"] = routes.shadow_breaker.state
        return dict(found)

    def _components(self, upstreams: dict[str, BentoReady]) -> dict[str, Component]:
        table = self._routing.problem or self._table_problem
        if not self.has_table:
            table = table or "no routing table yet"
        elif self.routes.table.champion is None:
            table = table or "the table names no champion"
        ill = [f"{tag} is {bento.state}" for tag, bento in upstreams.items() if bento.state != "ready"]
        ill += [f"{a.url}: {NO_FRONT}" for b in self._upstreams.bentos.values() for a in b if not a.front]
        champion = self.routes.table.champion
        if champion and champion.bento not in upstreams:
            ill.append(f"{champion.bento} has no address in the table")
        ill += [f"breaker of {name} is {state}" for name, state in self._breakers().items() if state != "closed"]
        resort = self._last_resort.problem or self._popularity_problem
        if self._last_resort.popular is None:
            resort = resort or "no popularity list yet"
        return {
            "table": _component(table),
            "upstreams": _component("; ".join(ill)),
            "last_resort": _component(resort),
            "catalogue": _component(self._withheld.problem),
            "events": _component(self._events.problem),
            "exposures": _component(self._exposures.healthy),
            "attempts": _component(self._attempts.healthy),
        }

    def _take_table(self) -> None:
        """A new table holds from here on; what is under way goes on with the old one."""
        current = self._routing.current()
        if current is None or current[1] is self._applied:
            return
        assigner, self._applied = current
        table = self._applied
        try:
            routes = Routes(table, assigner, self.routes)
            self._upstreams.apply(table.bentos)
        except Exception as error:  # the last good one holds
            self._table_problem = f"table {table.name} cannot be applied: {error}"
            log.exception("table %s cannot be applied", table.name)
            return
        old = self.routes
        if old.table.champion != table.champion:  # another Bento or other rules: what they showed is out of date
            self._last_resort.slates.clear()
        for name in set(self._breakers()) - set(self._breakers(routes)):
            self.metrics.breaker.labels(name).set(0)
        self.limits.apply_table(table)
        self.routes = routes
        self._applied_at = time.monotonic()
        self._table_problem = None
        popular = self._last_resort.popular
        if table.champion and popular and popular.bento != table.champion.bento:
            self._captured_at = float("-inf")
        log.info("table %s holds, after %s", table.name, old.name or "none")

    async def _look_at_catalogue(self) -> None:
        await asyncio.to_thread(self._withheld.look)
        self._last_resort.withheld = self._withheld.ids

    async def _watch(self) -> None:
        self._take_table()

    _captured_at = float("-inf")

    async def _capture(self) -> None:
        """The champion's popularity list, every `POPULARITY_S`."""
        routes = self.routes
        if routes.table.champion is None:
            return
        if time.monotonic() - self._captured_at < POPULARITY_S:
            return
        bento = routes.table.champion.bento
        address = self._upstreams.choose(bento, time.monotonic())
        if address is None:
            return
        headers = {"content-type": "application/json"}
        if self.settings.front_key:
            headers[KEY] = self.settings.front_key
        try:
            popular = await fetch(address, headers, bento)
        except Refused as error:
            self._popularity_problem = error.message
            return
        self._captured_at = time.monotonic()
        self._popularity_problem = None
        self._last_resort.popular = popular
        await asyncio.to_thread(self._last_resort.keep, popular)

    async def _observe(self) -> None:
        self.observe()  # a scrape of another process reads what this one last set

    def _mirrored(self, mirrored: Mirrored, made: Try, compared: Compared | None) -> None:
        self._count(made, shadow=True)
        self._attempts.append(
            records.attempt(
                made,
                mirrored.ask.request,
                mirrored.ask.request_id,
                mirrored.given.assigned.unit,
                mirrored.routes.table.release,
                shadow=True,
                compared=compared,
            )
        )

    def _count(self, made: Try, *, shadow: bool) -> None:
        self.metrics.attempts.labels(made.variant, made.outcome, "1" if shadow else "0").inc()
        if made.outcome != "open":
            self.metrics.attempt_seconds.labels(made.variant).observe(made.ms / 1000)

    async def _forever(self, every_s: float, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await step()
            except Exception:
                self.metrics.errors.labels("background").inc()
                log.exception("a task in the background failed; it is tried again")
            await asyncio.sleep(every_s)


NO_FRONT = "it does not take this gateway for its front: STREAMREC_FRONT_KEY differs, so it logs exposures of its own"


def _component(problem: str | None) -> Component:
    return Component("degraded", problem) if problem else Component("healthy")
