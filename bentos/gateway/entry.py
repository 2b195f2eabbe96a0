"""The entry of the gateway: the same addresses as a Bento's, for consumers that need not know how many there are."""

import time
from collections.abc import Callable

import msgspec

from bentos.catalogue import routes as catalogue_routes
from bentos.gateway import openapi
from bentos.gateway.runtime import GatewayRuntime
from bentos.recommender import log_routes, metrics
from bentos.recommender.attended import Attended
from bentos.recommender.front import read_deadline
from bentos.recommender.http import (
    RETRY_SOON,
    ASGIApp,
    HttpProblem,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    respond,
)
from bentos.recommender.layer import RECOMMENDATIONS, REQUESTS, Layer, Routes, livez
from bentos.recommender.requests import decode
from contracts.errors import Refused
from contracts.front import TRACEPARENT, traceparent

PASS = b"x-streamrec-pass"
_ENCODE = msgspec.json.Encoder().encode


class GatewayEntry(Layer[GatewayRuntime]):
    """The outermost ASGI layer of the gateway."""

    def __init__(
        self, inner: ASGIApp, runtime: Callable[[], GatewayRuntime | None], *, max_in_flight: int = 1024
    ) -> None:
        super().__init__(inner, runtime, ROUTES, loading="the gateway is starting", max_in_flight=max_in_flight)


async def _recommend(scope: Scope, receive: Receive, send: Send, runtime: GatewayRuntime, request_id: str) -> int:
    runtime.limits.admit(header(scope, b"authorization"), time.monotonic())
    within_ms = read_deadline(scope)
    body = await read_body(scope, receive)
    request = decode(body)
    tester = header(scope, PASS)
    try:
        async with Attended(receive):
            given = await runtime.recommend(
                request,
                body,
                request_id,
                tester.decode("latin-1") if tester else None,
                within_ms,
                traceparent(header(scope, TRACEPARENT)),
            )
    except Refused as error:
        raise HttpProblem(403, f"`{PASS.decode()}`: {error.message}") from error
    seconds = time.perf_counter() - scope["streamrec.began"]
    try:
        if given.unserved:
            raise HttpProblem(503, "nothing can be served now; /readyz says why", headers=RETRY_SOON)
        await respond(send, 200, _ENCODE(given.answer), headers=[(b"x-request-id", request_id.encode())])
    finally:
        runtime.record(given, request, body, seconds)
    return 200


async def _events(scope: Scope, receive: Receive, send: Send, runtime: GatewayRuntime, request_id: str) -> int:
    if not runtime.has_table:  # whose key would be good?
        raise HttpProblem(503, "the gateway has no routing table yet", headers=RETRY_SOON)
    runtime.limits.admit(header(scope, b"authorization"), time.monotonic())
    return await log_routes.events(scope, receive, send, runtime, request_id)


async def _openapi(scope: Scope, receive: Receive, send: Send, runtime: GatewayRuntime, request_id: str) -> int:
    await respond(send, 200, openapi.document(), head=scope["method"] == "HEAD")
    return 200


async def _readyz(scope: Scope, receive: Receive, send: Send, runtime: GatewayRuntime, request_id: str) -> int:
    readiness = runtime.readiness()
    status = 503 if readiness.status == "unavailable" else 200
    await respond(send, status, _ENCODE(readiness), head=scope["method"] == "HEAD")
    return status


async def _metrics(scope: Scope, receive: Receive, send: Send, runtime: GatewayRuntime, request_id: str) -> int:
    runtime.observe()
    body = runtime.metrics.render()
    await respond(send, 200, body, content_type=metrics.CONTENT_TYPE, head=scope["method"] == "HEAD")
    return 200


ROUTES: Routes = {
    RECOMMENDATIONS: {"POST": _recommend},
    "/v1/events": {"POST": _events},
    REQUESTS + "{request_id}": {"GET": log_routes.request},
    **catalogue_routes.ROUTES,
    "/v1/openapi.json": {"GET": _openapi},
    "/readyz": {"GET": _readyz},
    "/livez": {"GET": livez},
    "/metrics": {"GET": _metrics},
}
