"""The population over HTTP: it asks a gateway (or one Bento) for slates, and clicks by what it is known to like."""

import asyncio
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
import msgspec
import numpy as np

from contracts.errors import Unreachable
from contracts.http import EventIn, RecommendationResponse
from monitoring.simulation.behaviour import Behaviour
from monitoring.simulation.population import Population, Visitors

EVENTS_AT_ONCE = 500
FLUSH_S = 0.5
QUANTILES = (0.5, 0.95, 0.99, 1.0)


@dataclass
class Seen:
    """What the users saw. failed: no slate, with the reason; empty: a slate without items."""

    requests: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    variants: Counter[str] = field(default_factory=Counter)
    degradations: Counter[str] = field(default_factory=Counter)
    bentos: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    clicks: int = 0
    events_refused: int = 0
    ms: list[float] = field(default_factory=list)
    met: set[str] = field(default_factory=set)  # users whom the candidate answered

    def document(self) -> dict[str, object]:
        quantiles: list[float] = np.quantile(self.ms, QUANTILES).tolist() if self.ms else []
        return {
            "requests": self.requests,
            "failed": sum(self.failed.values()),
            "failures": dict(self.failed),
            "variants": dict(self.variants),
            "degradations": dict(self.degradations),
            "bentos": dict(self.bentos),
            "empty": self.empty,
            "clicks": self.clicks,
            "events_refused": self.events_refused,
            "users_met": len(self.met),
            **{
                f"p{share * 100:g}_ms" if share < 1 else "max_ms": round(ms, 2)
                for share, ms in zip(QUANTILES, quantiles, strict=False)
            },
        }


class Crowd:
    """
    Args:
        url: of the gateway.
        behaviour: what the candidate's slates are worth; clicks follow the variant that answered.
        key: a consumer's.
    """

    def __init__(
        self,
        url: str,
        people: Population,
        behaviour: Behaviour,
        *,
        seed: int,
        key: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._url = url.rstrip("/")
        self._people, self._behaviour = people, behaviour
        self._visitors = Visitors(people)
        self._rng = np.random.default_rng([seed, 3])
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._events: list[EventIn] = []
        self.seen = Seen()

    async def run(self, *, rate: float, seconds: float | None = None, requests: int | None = None) -> Seen:
        """Open loop: requests come at `rate` a second (Poisson), however slow the answers are, until one bound.

        Raises:
            Unreachable: nobody listens at the URL.
        """
        async with aiohttp.ClientSession(headers=self._headers, timeout=self._timeout) as session:
            try:
                async with session.get(f"{self._url}/livez") as answer:
                    await answer.read()
            except aiohttp.ClientError as error:
                raise Unreachable(f"{self._url} does not answer: {error}", next_command="streamrec status") from error
            flushing = asyncio.create_task(self._flush_until_cancelled(session))
            try:
                await self._ask_all(session, rate, seconds, requests)
            finally:
                flushing.cancel()
                await asyncio.gather(flushing, return_exceptions=True)
                await self._flush(session)
        return self.seen

    async def _ask_all(
        self, session: aiohttp.ClientSession, rate: float, seconds: float | None, requests: int | None
    ) -> None:
        began = due = time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        sent = 0
        while (requests is None or sent < requests) and (seconds is None or due - began < seconds):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            user = self._visitors.draw_one(self._rng)
            task = asyncio.create_task(self._visit(session, user))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            sent += 1
            due += float(self._rng.exponential(1 / rate))
        await asyncio.gather(*under_way)

    async def _visit(self, session: aiohttp.ClientSession, user: int) -> None:
        people, seen = self._people, self.seen
        body = {"user_id": people.ids[user], "k": len(people.position), "context": people.context_of(user)}
        began = time.monotonic()
        seen.requests += 1
        try:
            async with session.post(f"{self._url}/v1/recommendations", json=body) as answer:
                content = await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            seen.failed[type(error).__name__] += 1
            return
        seen.ms.append((time.monotonic() - began) * 1000)
        if status != 200:
            seen.failed[f"HTTP {status}"] += 1
            return
        slate = msgspec.json.decode(content, type=RecommendationResponse)
        seen.variants[slate.variant] += 1
        seen.degradations[slate.degradation] += 1
        seen.bentos[slate.bento] += 1
        seen.empty += not slate.items
        if slate.variant == "candidate":
            seen.met.add(slate.user_id)
        self._click(user, slate)

    def _click(self, user: int, slate: RecommendationResponse) -> None:
        people, behaviour = self._people, self._behaviour
        factor = 1.0
        if slate.variant == "candidate":
            factor = behaviour.click_factor
            country = behaviour.biased_country
            if country is not None and people.of("country", country)[user]:
                factor *= behaviour.biased_factor
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        items = slate.items[: len(people.position)]
        for item, chance in zip(items, people.chances(user, [i.item_id for i in items]), strict=True):
            if self._rng.random() < chance * factor:
                self.seen.clicks += 1
                self._events.append(
                    EventIn(
                        event_id=str(uuid.uuid4()),
                        user_id=slate.user_id,
                        item_id=item.item_id,
                        event="click",
                        timestamp=now,
                        request_id=slate.request_id,
                        position=item.position,
                    )
                )

    async def _flush_until_cancelled(self, session: aiohttp.ClientSession) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            await self._flush(session)

    async def _flush(self, session: aiohttp.ClientSession) -> None:
        """What is refused is sent no second time, and counted."""
        while self._events:
            events, self._events = self._events[:EVENTS_AT_ONCE], self._events[EVENTS_AT_ONCE:]
            headers = {"content-type": "application/json"}
            try:
                async with session.post(
                    f"{self._url}/v1/events", data=msgspec.json.encode(events), headers=headers
                ) as answer:
                    await answer.read()
                    self.seen.events_refused += 0 if answer.status == 202 else len(events)
            except (aiohttp.ClientError, TimeoutError):
                self.seen.events_refused += len(events)
