"""A Bento that misbehaves when it is told to: in front of a real one, or with slates of its own.

    python -m monitoring.simulation.faulty --bento streamrec:bad --listen unix:/tmp/bad.sock [--behind http://HOST:PORT]
    curl --unix-socket /tmp/bad.sock -X PUT http://bento/faults -d '{"error_rate": 1.0}'

For the static driver: `upstreams = { "streamrec:bad" = ["unix:/tmp/bad.sock"] }`. Without `--behind` its slates have
the same items for everybody. It tells no front key from another and must not serve anyone but a simulation.
"""

import argparse
import asyncio
import hashlib
import random
import sys
from collections.abc import Mapping, Sequence

import aiohttp
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contracts.exposures import Versions
from contracts.http import FrontFacts, RecommendationRequest, RecommendationResponse, RecommendedItem
from contracts.parent import end_with_parent

HANG_S = 3600.0


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """error_rate: share of requests answered 500. delay_ms: before each answer. hang: no answer at all.

    empty_country, broken_country: users of it get no items, or 500. unready: `/readyz` says unavailable.
    """

    error_rate: float = 0.0
    delay_ms: float = 0.0
    hang: bool = False
    empty_country: str | None = None
    broken_country: str | None = None
    unready: bool = False


NO_FAULTS = Faults()
FAULTS: Mapping[str, Faults] = {
    "none": NO_FAULTS,
    "failing": Faults(error_rate=0.5),
    "dying": Faults(error_rate=1.0),
    "slow": Faults(delay_ms=400.0),
    "hanging": Faults(hang=True),
    "empty": Faults(empty_country="AT"),
    "broken": Faults(broken_country="AT"),
    "unready": Faults(unready=True),
}


class FaultyBento:
    """
    Args:
        bento: the tag that it says it is.
        behind: the Bento that it forwards to, `http://HOST:PORT` or `unix:/PATH`; None: slates of its own.
    """

    def __init__(self, bento: str, behind: str | None = None, faults: Faults = NO_FAULTS, seed: int = 0) -> None:
        self._bento, self._behind, self.faults = bento, behind, faults
        self._rng = random.Random(seed)  # noqa: S311 - faults, not secrets
        self._client: aiohttp.ClientSession | None = None
        self.app = Starlette(
            routes=[
                Route("/faults", self._tell, methods=["GET", "PUT"]),
                Route("/v1/recommendations", self._recommend, methods=["POST"]),
                Route("/{path:path}", self._pass_on),
            ]
        )

    async def _tell(self, request: Request) -> Response:
        """GET: the faults in force. PUT: these from now on."""
        if request.method == "PUT":
            try:
                self.faults = msgspec.json.decode(await request.body(), type=Faults)
            except msgspec.DecodeError as error:
                return Response(f"not faults: {error}", 400)
        return _json(self.faults)

    async def _pass_on(self, request: Request) -> Response:
        if request.url.path == "/readyz" and self.faults.unready:
            return _json({"bento": self._bento, "status": "unavailable"}, 503)
        if self._behind is not None and request.url.path != "/readyz":
            return await self._forward(request, await request.body())
        return _json({"bento": self._bento, "status": "ready"})

    async def _recommend(self, request: Request) -> Response:
        faults, body = self.faults, await request.body()
        if faults.hang:
            await asyncio.sleep(HANG_S)
        if faults.delay_ms:
            await asyncio.sleep(faults.delay_ms / 1000)
        try:
            asked = msgspec.json.decode(body, type=RecommendationRequest)
        except msgspec.DecodeError as error:
            return Response(str(error), 400)
        country = asked.context.get("country")
        if self._rng.random() < faults.error_rate or (country is not None and country == faults.broken_country):
            return Response("told to fail", 500)
        empty = country is not None and country == faults.empty_country
        if self._behind is None:
            return _json(self._slate(request, asked, empty))
        answer = await self._forward(request, body)
        if answer.status_code != 200:
            return answer
        found = msgspec.json.decode(bytes(answer.body), type=RecommendationResponse)
        changed = msgspec.structs.replace(found, bento=self._bento, items=[] if empty else found.items)
        if changed.versions is not None:
            versions = msgspec.structs.replace(changed.versions, bento=self._bento)
            changed = msgspec.structs.replace(changed, versions=versions)
        return _json(changed)

    def _slate(self, request: Request, asked: RecommendationRequest, empty: bool) -> RecommendationResponse:
        excluded = set(asked.exclude)
        names = [f"item-{i}" for i in range(asked.k + len(excluded))]
        items = [name for name in names if name not in excluded][: 0 if empty else asked.k]
        own = hashlib.sha256(self._bento.encode()).hexdigest()[:8]
        return RecommendationResponse(
            request_id=request.headers.get("x-request-id", "none"),
            user_id=asked.user_id,
            items=[RecommendedItem(name, 1.0 - i / 1000, i + 1, ["trending"]) for i, name in enumerate(items)],
            degradation="full",
            ranked_by="dcn",
            bento=self._bento,
            versions=Versions(bento=self._bento, retrieval=own, ranking=own, fallback=own, rules=own),
            front=FrontFacts(clock_us=1, panel=[] if asked.context else ["no_context"]),
        )

    async def _forward(self, request: Request, body: bytes) -> Response:
        if self._client is None:
            self._client = _client(self._behind or "")
        headers = {k: v for k, v in request.headers.items() if k not in ("host", "content-length", "connection")}
        base = "http://bento" if (self._behind or "").startswith("unix:") else self._behind
        try:
            async with self._client.request(
                request.method, f"{base}{request.url.path}", data=body, headers=headers
            ) as answer:
                return Response(await answer.read(), answer.status, media_type=answer.content_type)
        except aiohttp.ClientError as error:
            return Response(f"{self._behind} does not answer: {error}", 502)


def _client(url: str) -> aiohttp.ClientSession:
    if url.startswith("unix:"):
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(url.removeprefix("unix:")))
    return aiohttp.ClientSession()


def _json(document: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")


async def tell(url: str, faults: Faults) -> None:
    """Tell the one that listens at `url` how to behave from now on.

    Raises:
        aiohttp.ClientError: it does not answer, or refuses.
    """
    base = "http://bento" if url.startswith("unix:") else url
    async with _client(url) as client, client.put(f"{base}/faults", data=msgspec.json.encode(faults)) as answer:
        answer.raise_for_status()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.simulation.faulty", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--bento", required=True, help="the tag that it says it is")
    parser.add_argument("--listen", required=True, help="unix:/PATH, or a port of 127.0.0.1")
    parser.add_argument("--behind", help="the Bento to forward to")
    parser.add_argument("--fault", choices=sorted(FAULTS), default="none", help="from the beginning")
    parser.add_argument("--parent", type=int, help="end with this process")
    options = parser.parse_args(arguments)
    if options.parent:
        end_with_parent(options.parent)
    app = FaultyBento(options.bento, options.behind, FAULTS[options.fault]).app
    if options.listen.startswith("unix:"):
        uvicorn.run(app, uds=options.listen.removeprefix("unix:"), log_level="warning", access_log=False)
    else:
        uvicorn.run(app, host="127.0.0.1", port=int(options.listen), log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
