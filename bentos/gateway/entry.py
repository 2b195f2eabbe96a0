"""The entry of the gateway: the same addresses as a Bento's, for consumers that need not know how many there are."""

import hmac
import re
import time
from collections.abc import Callable

import msgspec

from bentos.gateway import openapi
from bentos.gateway.runtime import GatewayRuntime
from bentos.recommender import metrics
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
from bentos.recommender.layer import REQUESTS, Layer, Routes, livez
from bentos.recommender.requests import decode
from contracts.errors import Refused, Unreachable

REQUEST_ID = re.compile(r"^[0-9a-f-]{36}$")
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
    body = await read_body(scope, receive)
    request = decode(body)
    tester = header(scope, PASS)
    try:
        given = await runtime.recommend(request, body, request_id, tester.decode("latin-1") if tester else None)
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
    body = await read_body(scope, receive)
    try:
        accepted = await runtime.accept_events(body)
    except Unreachable as error:
        detail = "the events are not stored: send them again with the same `event_id`; /readyz says why"
        raise HttpProblem(503, detail, headers=RETRY_SOON) from error
    await respond(send, 202, _ENCODE(accepted), headers=[(b"x-request-id", request_id.encode())])
    return 202


async def _request(scope: Scope, receive: Receive, send: Send, runtime: GatewayRuntime, request_id: str) -> int:
    """The logged context of one request: for whoever holds the token, as it names what a user did."""
    token = runtime.settings.token
    if token is None:
        raise HttpProblem(403, "this service has no token: set STREAMREC_TOKEN to open the log")
    given = header(scope, b"authorization")
    if given is None or not given.lower().startswith(b"bearer "):
        raise HttpProblem(401, "send `Authorization: Bearer TOKEN`", headers=[(b"www-authenticate", b"Bearer")])
    if not hmac.compare_digest(given[7:].strip(), token.encode()):
        raise HttpProblem(403, "this is not the token of this service")
    wanted = scope["path"].removeprefix(REQUESTS)
    if not REQUEST_ID.match(wanted):
        raise HttpProblem(400, "a request id is a UUID", field="request_id")
    record = await runtime.find_context(wanted)
    if record is None:
        raise HttpProblem(404, f"no context was logged for request {wanted}")
    await respond(send, 200, _ENCODE(record), headers=[(b"x-request-id", request_id.encode())])
    return 200


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
    "/v1/recommendations": {"POST": _recommend},
    "/v1/events": {"POST": _events},
    REQUESTS + "{request_id}": {"GET": _request},
    "/v1/openapi.json": {"GET": _openapi},
    "/readyz": {"GET": _readyz},
    "/livez": {"GET": livez},
    "/metrics": {"GET": _metrics},
}
