"""Connections to the Bentos of the routing table: kept alive, bounded, least in flight first.

An address is `http://HOST:PORT` or `unix:/PATH`. Those that are ejected, draining or away are left out as long as
there is another one.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bentos.gateway.ejection import Ejection
from bentos.gateway.http_client import Client, Dead, Garbled, Reply
from contracts.routing import Upstream

PROBE_S = 1.0

AddressState = Literal["unknown", "ready", "draining", "away"]


class Failed(Exception):
    """No answer. late: not in time. dead: the connection was refused, reset or cut: another try may do better."""

    def __init__(self, reason: str, *, late: bool = False, dead: bool = False, refused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.late = late
        self.dead = dead
        self.refused = refused


@dataclass(slots=True, eq=False)
class Address:
    """One address and what is known of it."""

    url: str
    ejection: Ejection = field(default_factory=Ejection)
    in_flight: int = 0
    state: AddressState = "unknown"
    detail: str = ""
    front: bool = True  # whether it takes us for its gateway, by its last answer
    _client: Client = field(init=False)

    def __post_init__(self) -> None:
        self._client = Client(self.url)

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float, *, hurried: bool = False
    ) -> Reply:
        """hurried: with so little time that a late answer is not held against the address.

        Raises:
            Failed: no answer within the time, or a dead connection.
        """
        self.in_flight += 1
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._client.request("POST", path, headers, body)
            self.ejection.good()
            return reply
        except TimeoutError as error:
            if not hurried:
                self.ejection.bad(time.monotonic())
            raise Failed(f"no answer within {timeout_s * 1000:.0f} ms", late=True) from error
        except Dead as error:
            self.ejection.bad(time.monotonic(), dead=error.refused)
            raise Failed(f"{self.url}: {error}", dead=True, refused=error.refused) from error
        except Garbled as error:
            self.ejection.bad(time.monotonic())
            raise Failed(f"{self.url}: {error}") from error
        finally:
            self.in_flight -= 1

    async def probe(self) -> None:
        """Ask `/readyz`. Never raises."""
        self._client.trim()
        try:
            async with asyncio.timeout(PROBE_S):
                reply = await self._client.request("GET", "/readyz", {})
        except (TimeoutError, Dead, Garbled) as error:
            self.state, self.detail = "away", f"{type(error).__name__}: {error}"
            return
        if reply.status == 200:
            if self.state == "away":  # it is back: what happened before says nothing
                self.ejection.good()
            self.state, self.detail = "ready", ""
        else:
            self.state, self.detail = "draining", f"HTTP {reply.status}: {reply.body[:200].decode(errors='replace')}"

    def close(self) -> None:
        self._client.close()


class Upstreams:
    """The addresses of all Bentos in the table."""

    def __init__(self) -> None:
        self._addresses: dict[str, Address] = {}
        self._bentos: dict[str, tuple[Address, ...]] = {}
        self._retired: set[Address] = set()

    @property
    def bentos(self) -> Mapping[str, tuple[Address, ...]]:
        return self._bentos

    def apply(self, bentos: Mapping[str, Upstream]) -> None:
        """Take over a new table. An address that stays keeps its connections; one that goes finishes first.

        Raises:
            ValueError: a URL that is none; nothing has changed.
        """
        urls = {url for upstream in bentos.values() for url in upstream.urls}
        new = {url: Address(url) for url in urls - set(self._addresses)}
        for url in set(self._addresses) - urls:
            self._retired.add(self._addresses.pop(url))
        self._addresses |= new
        self._bentos = {
            tag: tuple(self._addresses[url] for url in dict.fromkeys(upstream.urls)) for tag, upstream in bentos.items()
        }

    def choose(self, tag: str, now: float, not_again: Iterable[Address] = ()) -> Address | None:
        """Least in flight of those that look well; of all, where none does. None: no address (that is left)."""
        tried = set(map(id, not_again))
        left = [a for a in self._bentos.get(tag, ()) if id(a) not in tried]
        if len(left) > 1:
            well = [a for a in left if a.state in ("ready", "unknown") and not a.ejection.out(now)]
            left = well or left
        return min(left, key=_in_flight) if left else None

    async def probe(self) -> None:
        """Ask all, and let go of retired ones that have finished. Never raises."""
        await asyncio.gather(*(address.probe() for address in self._addresses.values()))
        for address in [a for a in self._retired if a.in_flight == 0]:
            self._retired.discard(address)
            address.close()

    def close(self) -> None:
        for address in [*self._addresses.values(), *self._retired]:
            address.close()


def _in_flight(address: Address) -> int:
    return address.in_flight
