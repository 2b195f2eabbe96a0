"""Connections to the Bentos of the routing table: kept alive, bounded, least in flight first.

An address is `http://HOST:PORT` or `unix:/PATH`. Those that are ejected, draining or away are left out as long as
there is another one.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import aiohttp

from bentos.gateway.breaker import Ejection
from contracts.routing import Upstream

MAX_ANSWER_BYTES = 4 << 20
CONNECTIONS = 256  # to one address; more requests wait for one, within their deadline
KEEP_ALIVE_S = 30.0  # less than the 75 s of a Bento, so that it is we who close
PROBE_S = 1.0
RECOMMENDATIONS = "/v1/recommendations"

AddressState = Literal["unknown", "ready", "draining", "away"]


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes


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
    _session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Reply:
        """
        Raises:
            Failed: no answer within the time, or a dead connection.
        """
        self.in_flight += 1
        try:
            async with asyncio.timeout(timeout_s):
                async with self._open().post(self._at(path), data=body, headers=headers) as response:
                    reply = Reply(response.status, await _bounded(response))
            self.ejection.good()
            return reply
        except TimeoutError as error:
            self.ejection.bad(time.monotonic())
            raise Failed(f"no answer within {timeout_s * 1000:.0f} ms", late=True) from error
        except (aiohttp.ClientConnectorError, aiohttp.ClientConnectionResetError) as error:
            refused = isinstance(error, aiohttp.ClientConnectorError)
            self.ejection.bad(time.monotonic(), dead=refused)
            raise Failed(f"{self.url}: {error}", dead=True, refused=refused) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.ejection.bad(time.monotonic())
            dead = isinstance(error, (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError))
            raise Failed(f"{self.url}: {type(error).__name__}: {error}", dead=dead) from error
        finally:
            self.in_flight -= 1

    async def probe(self) -> None:
        """Ask `/readyz`. Never raises."""
        try:
            async with asyncio.timeout(PROBE_S):
                async with self._open().get(self._at("/readyz")) as response:
                    body = await _bounded(response)
                    status = response.status
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a TimeoutError is an OSError
            self.state, self.detail = "away", f"{type(error).__name__}: {error}"
            return
        if status == 200:
            if self.state == "away":  # it is back: what happened before says nothing
                self.ejection.good()
            self.state, self.detail = "ready", ""
        else:
            self.state, self.detail = "draining", f"HTTP {status}: {body[:200].decode(errors='replace')}"

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        """Made on the event loop that uses it."""
        if self._session is None:
            connector: aiohttp.BaseConnector = (
                aiohttp.UnixConnector(self.url.removeprefix("unix:"), limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S)
                if self.url.startswith("unix:")
                else aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S)
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the caller's deadline holds
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                trust_env=False,
            )
        return self._session

    def _at(self, path: str) -> str:
        return ("http://bento" if self.url.startswith("unix:") else self.url.rstrip("/")) + path


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
        """Take over a new table. An address that stays keeps its connections; one that goes finishes first."""
        urls = {url for upstream in bentos.values() for url in upstream.urls}
        for url in set(self._addresses) - urls:
            self._retired.add(self._addresses.pop(url))
        for url in urls - set(self._addresses):
            self._addresses[url] = Address(url)
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
            with contextlib.suppress(Exception):
                await address.close()

    async def close(self) -> None:
        for address in [*self._addresses.values(), *self._retired]:
            await address.close()


def _in_flight(address: Address) -> int:
    return address.in_flight


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """
    Raises:
        ValueError: the answer is over `MAX_ANSWER_BYTES`.
    """
    length = response.content_length
    if length is not None:
        if length > MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of {length} bytes")
        return await response.content.read() if length else b""
    chunks = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of over {MAX_ANSWER_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)
