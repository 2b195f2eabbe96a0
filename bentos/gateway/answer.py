"""The path of one request: assigned variant → champion → the gateway's own last resort."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bentos.gateway.checked import Broken, checked
from bentos.gateway.last_resort import LastResort
from bentos.gateway.routes import Assigned, Routes, Step
from bentos.gateway.upstream import Address, Failed, Upstreams
from bentos.recommender.breaker import Breaker
from bentos.recommender.layer import RECOMMENDATIONS
from contracts import front
from contracts.attempts import AttemptOutcome
from contracts.http import RecommendationRequest, RecommendationResponse
from contracts.routing import Pass
from contracts.serving import Variant

RESERVE_S = 0.003  # for what the gateway does after the last call
LEAST_S = 0.002  # with less, a call is not worth making
TRIES = 3  # of one variant: a dead connection is tried again at another address, or over a new connection
PERSONAL = frozenset({"full", "stale_features", "simple_ranking", "batch"})
OWN = "gateway"  # in place of a Bento, for what the gateway itself answers

KEY, REQUEST_ID, DEADLINE_MS, OVERRIDES, SHADOW, TRACEPARENT = (
    name.decode()
    for name in (front.KEY, front.REQUEST_ID, front.DEADLINE_MS, front.OVERRIDES, front.SHADOW, front.TRACEPARENT)
)


@dataclass(frozen=True, slots=True)
class Try:
    """One call to a variant, or why there was none (`open`). ms: of the call. broken: it answered, off the contract."""

    variant: Variant
    bento: str
    began_us: int  # wall clock
    outcome: AttemptOutcome
    status: int = 0
    ms: float = 0.0
    answer: RecommendationResponse | None = None
    broken: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request on its way. body: as it came, for the Bento. deadline: monotonic seconds.

    hurried: its consumer gives so little time that a late answer says nothing of whoever was asked.
    """

    request: RecommendationRequest
    body: bytes
    request_id: str
    began_us: int
    deadline: float
    traceparent: str | None = None
    hurried: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """What the consumer gets, and how it came about. source: the Bento's answer, None for the gateway's own.

    unserved: not even the last resort had anything.
    """

    answer: RecommendationResponse
    assigned: Assigned
    tries: Sequence[Try]
    source: RecommendationResponse | None
    routes: Routes
    began_us: int
    ms_served: float = 0.0
    unserved: bool = False


class Answering:
    """
    Args:
        front_key: what tells a Bento that we are its gateway; None: it answers as to any consumer.
    """

    def __init__(self, upstreams: Upstreams, last_resort: LastResort, front_key: str | None) -> None:
        self._upstreams = upstreams
        self._last_resort = last_resort
        self._headers = {"content-type": "application/json"} | ({KEY: front_key} if front_key else {})

    async def answer(self, routes: Routes, ask: Ask, tester: Pass | None = None) -> Given:
        """Never raises for what a Bento does; the last resort stands in."""
        request = ask.request
        assigned = routes.assigner.assign(request.user_id, request.context, tester)
        tries: list[Try] = []
        shown: Try | None = None
        asked: Step | None = None
        for step in routes.plan(assigned.variant):
            if shown and asked and asked.target == step.target:
                break  # it answered, with nothing: it would again
            asked = step
            made = await self.ask(routes, step, assigned, ask, routes.breakers[step.target])
            tries += made
            if made[-1].answer is not None and (made[-1].answer.items or shown is None):
                shown = made[-1]
            if shown and shown.answer and shown.answer.items:
                break
        served = shown.answer if shown else None
        failed = tries[-1].answer is None if tries else True
        if shown is None or served is None or (failed and not served.items):
            own = self._own(request, ask.request_id, assigned)
            if own.items or shown is None or served is None:
                return Given(own, assigned, tries, None, routes, ask.began_us, unserved=not own.items)
        answer = RecommendationResponse(
            request_id=ask.request_id,
            user_id=request.user_id,
            items=served.items,
            degradation=served.degradation,
            ranked_by=served.ranked_by,
            bento=served.bento,
            variant=shown.variant,
            experiments=dict(assigned.experiments),
            batch_age_s=served.batch_age_s,
            debug=served.debug if not request.debug else {**(served.debug or {}), "gateway": _told(assigned, tries)},
        )
        if served.items and served.degradation in PERSONAL and not assigned.forced:
            self._last_resort.slates.put(request.user_id, served.items, time.monotonic())
        return Given(answer, assigned, tries, served, routes, ask.began_us, shown.ms)

    def _own(self, request: RecommendationRequest, request_id: str, assigned: Assigned) -> RecommendationResponse:
        """The last resort; without items where it has nothing."""
        rung, items = self._last_resort.slate(request.user_id, request.k, request.exclude, time.monotonic())
        return RecommendationResponse(
            request_id=request_id,
            user_id=request.user_id,
            items=items,
            degradation=rung,
            ranked_by=rung,
            bento=OWN,
            variant="fallback",
            experiments=dict(assigned.experiments),
        )

    async def ask(
        self, routes: Routes, step: Step, assigned: Assigned, ask: Ask, breaker: Breaker, *, shadow: bool = False
    ) -> list[Try]:
        """Call one variant within its share of the time; again, where the connection was dead. Never empty."""
        until = time.monotonic()
        until += (ask.deadline - until) * step.share
        headers = {**self._headers, REQUEST_ID: ask.request_id}
        if (overrides := routes.overrides(step.target, assigned)) is not None:
            headers[OVERRIDES] = overrides
        if shadow:
            headers[SHADOW] = "1"
        elif ask.traceparent is not None:
            headers[TRACEPARENT] = ask.traceparent
        made: list[Try] = []
        refused: list[Address] = []
        for _ in range(TRIES):
            now = time.monotonic()
            if until - now < LEAST_S:
                break
            address = self._upstreams.choose(step.target.bento, now, refused)
            if address is None:
                break
            permit = breaker.allow(now)
            if permit is None:
                break
            told = False
            try:
                again, one = await self._try(step, address, ask, headers, until, now)
                told = True
            finally:
                if not told:  # cancelled: it says nothing of the variant
                    breaker.none(permit)
            made.append(one)
            if ask.hurried and one.outcome == "late":
                breaker.none(permit)
            else:
                (breaker.good if one.outcome == "ok" else breaker.bad)(permit, time.monotonic())
            if not again:
                return made
            if again == "elsewhere":
                refused.append(address)
        if not made:
            made.append(Try(step.variant, step.target.bento, _now_us(), "open", reason="not tried"))
        return made

    async def _try(
        self, step: Step, address: Address, ask: Ask, headers: dict[str, str], until: float, began: float
    ) -> tuple[str, Try]:
        """("", what came of it); or where to try again: "elsewhere" than at an address that refused, or "anywhere"."""
        request = ask.request
        left_ms = (until - began) * 1000
        theirs_ms = left_ms - max(3.0, 0.05 * left_ms)  # its lower rungs must reach us in time
        headers[DEADLINE_MS] = f"{max(theirs_ms, 0.1):.1f}"
        began_us = _now_us()
        status, broken, reason, again, answer = 0, False, "", "", None
        outcome: AttemptOutcome = "error"
        try:
            reply = await address.post(RECOMMENDATIONS, ask.body, headers, until - began, hurried=ask.hurried)
            status = reply.status
            if status == 200:
                answer = checked(reply.body, ask.request_id, request.user_id, request.k)
                address.front = answer.versions is not None
                outcome = "ok"
            else:
                reason = f"HTTP {status}"
        except Broken as error:
            broken, reason = True, str(error)
        except Failed as error:
            outcome, reason = ("late" if error.late else "error"), error.reason
            again = "elsewhere" if error.refused else "anywhere" if error.dead else ""
        ms = (time.monotonic() - began) * 1000
        return again, Try(step.variant, step.target.bento, began_us, outcome, status, ms, answer, broken, reason)


def _told(assigned: Assigned, tries: Sequence[Try]) -> dict[str, object]:
    """For `debug`."""
    calls = [{"variant": t.variant, "outcome": t.outcome, "ms": round(t.ms, 3)} for t in tries]
    return {"assigned": assigned.variant, "probability": assigned.probability, "calls": calls}


def _now_us() -> int:
    return time.time_ns() // 1000
