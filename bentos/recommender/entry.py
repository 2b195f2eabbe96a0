"""The entry: the outermost ASGI layer. It answers /v1, /readyz, /livez and /metrics; the rest is BentoML's.

Outermost because the framework's stack costs more than the recommendation, and because its own /readyz and /metrics
win over anything mounted inside.
"""

import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable

import msgspec

from bentos.recommender import metrics, openapi
from bentos.recommender.http import (
    RETRY_SOON,
    ASGIApp,
    ClientGone,
    HttpProblem,
    Message,
    Receive,
    Scope,
    Send,
    from_error,
    header,
    read_body,
    respond,
    respond_problem,
)
from bentos.recommender.requests import decode
from bentos.recommender.runtime import Answer, Runtime, new_request_id
from contracts.errors import Overloaded, StreamRecError, Unreachable
from contracts.http import RecommendationResponse, RecommendedItem

log = logging.getLogger("streamrec.serving")

REQUEST_ID = re.compile(r"^[0-9a-f-]{36}$")
REQUESTS = "/v1/requests/"
Handler = Callable[[Scope, Receive, Send, Runtime, str], Awaitable[int]]


class Entry:
    """
    Args:
        inner: BentoML's application.
        runtime: the process's runtime, or None while it is being made.
        max_in_flight: requests being answered at once; the next one gets a 429.
    """

    def __init__(self, inner: ASGIApp, runtime: Callable[[], Runtime | None], *, max_in_flight: int = 512) -> None:
        self._inner = inner
        self._runtime = runtime
        self._max_in_flight = max_in_flight
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        path = scope["path"]
        route = REQUESTS + "{request_id}" if path.startswith(REQUESTS) else path
        methods = ROUTES.get(route)
        if methods is None and not path.startswith("/v1"):
            await self._inner(scope, receive, send)
            return
        began = time.perf_counter()
        scope["streamrec.began"] = began
        request_id = new_request_id()
        runtime = self._runtime()
        sent = _Sent(send)
        self._in_flight += 1
        if runtime:
            runtime.metrics.in_flight.set(self._in_flight)
        try:
            status = await self._answer(scope, receive, sent, runtime, request_id, route)
        except ClientGone:
            status = 499  # what nginx logs for it: nobody was there to answer
        except HttpProblem as problem:
            status = problem.status
            await respond_problem(send, problem, request_id)
        except StreamRecError as error:
            status = from_error(error).status
            if status == 500:
                log.exception("request %s failed", request_id)
            await respond_problem(send, from_error(error), request_id)
        except Exception:
            status = 500
            log.exception("request %s failed", request_id)
            if runtime:
                runtime.metrics.errors.labels("entry").inc()
            if sent.started:
                raise
            detail = "the service failed on this request; its log has the cause"
            await respond_problem(send, HttpProblem(500, detail), request_id)
        finally:
            self._in_flight -= 1
            if runtime:
                runtime.metrics.in_flight.set(self._in_flight)
        if runtime:
            runtime.metrics.requests.labels(route if methods else "unknown", str(status)).inc()

    async def _answer(
        self, scope: Scope, receive: Receive, send: "_Sent", runtime: Runtime | None, request_id: str, route: str
    ) -> int:
        methods = ROUTES.get(route)
        if methods is None:
            raise HttpProblem(404, f"there is no {scope['path']}; /v1/openapi.json names what there is")
        method = "GET" if scope["method"] == "HEAD" and "GET" in methods else scope["method"]
        if method not in methods:
            allowed = ", ".join(methods)
            raise HttpProblem(405, f"{scope['path']} answers {allowed}", headers=[(b"allow", allowed.encode())])
        if runtime is None or runtime.phase in ("loading", "stopped"):
            if route == "/livez":
                return await _livez(scope, receive, send, None, request_id)
            raise HttpProblem(503, "the models are being loaded", headers=RETRY_SOON)
        if self._in_flight > self._max_in_flight and route.startswith("/v1/"):
            raise from_error(Overloaded(f"{self._max_in_flight} requests are being answered"))
        return await methods[method](scope, receive, send, runtime, request_id)


class _Sent:
    """`send` that knows whether the answer has begun."""

    __slots__ = ("_send", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        await self._send(message)


async def _recommend(scope: Scope, receive: Receive, send: Send, runtime: Runtime, request_id: str) -> int:
    request = decode(await read_body(scope, receive))
    try:
        answer = await runtime.recommend(request, request_id, scope["streamrec.began"])
    except Overloaded as error:  # not even the last rung has anything
        log.error("request %s: %s", request_id, error.message)
        raise HttpProblem(503, "nothing can be served now; /readyz says why", headers=RETRY_SOON) from error
    body = msgspec.json.encode(_response(answer, runtime.bento))
    await respond(send, 200, body, headers=[(b"x-request-id", request_id.encode())])
    runtime.record(answer)
    return 200


def _response(answer: Answer, bento: str) -> RecommendationResponse:
    slate = answer.slate
    items = [
        RecommendedItem(item_id, round(score, 6), position, list(sources))
        for position, (item_id, score, sources) in enumerate(
            zip(slate.item_ids, slate.scores, slate.sources, strict=True), start=1
        )
    ]
    debug = None
    if answer.query.debug:
        debug = {
            "stages_ms": dict(slate.stages_ms),
            "notes": list(slate.notes),
            "stale": list(slate.stale),
            "features": slate.used,
            **(slate.debug or {}),
        }
    return RecommendationResponse(
        request_id=answer.query.request_id,
        user_id=answer.query.user_id,
        items=items,
        degradation=slate.degradation,
        ranked_by=slate.ranked_by,
        bento=bento,
        debug=debug,
    )


async def _events(scope: Scope, receive: Receive, send: Send, runtime: Runtime, request_id: str) -> int:
    body = await read_body(scope, receive)
    try:
        accepted = await runtime.accept_events(body)
    except Unreachable as error:
        detail = "the events are not stored: send them again with the same `event_id`; /readyz says why"
        raise HttpProblem(503, detail, headers=RETRY_SOON) from error
    await respond(send, 202, msgspec.json.encode(accepted), headers=[(b"x-request-id", request_id.encode())])
    return 202


async def _request(scope: Scope, receive: Receive, send: Send, runtime: Runtime, request_id: str) -> int:
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
    await respond(send, 200, msgspec.json.encode(record), headers=[(b"x-request-id", request_id.encode())])
    return 200


async def _openapi(scope: Scope, receive: Receive, send: Send, runtime: Runtime, request_id: str) -> int:
    await respond(send, 200, openapi.document(), head=scope["method"] == "HEAD")
    return 200


async def _readyz(scope: Scope, receive: Receive, send: Send, runtime: Runtime, request_id: str) -> int:
    readiness = runtime.readiness()
    status = 503 if readiness.status == "unavailable" else 200
    await respond(send, status, msgspec.json.encode(readiness), head=scope["method"] == "HEAD")
    return status


async def _livez(scope: Scope, receive: Receive, send: Send, runtime: Runtime | None, request_id: str) -> int:
    await respond(send, 200, b'{"status":"alive"}', head=scope["method"] == "HEAD")
    return 200


async def _metrics(scope: Scope, receive: Receive, send: Send, runtime: Runtime, request_id: str) -> int:
    runtime.observe()
    body = runtime.metrics.render()
    await respond(send, 200, body, content_type=metrics.CONTENT_TYPE, head=scope["method"] == "HEAD")
    return 200


ROUTES: dict[str, dict[str, Handler]] = {
    "/v1/recommendations": {"POST": _recommend},
    "/v1/events": {"POST": _events},
    REQUESTS + "{request_id}": {"GET": _request},
    "/v1/openapi.json": {"GET": _openapi},
    "/readyz": {"GET": _readyz},
    "/livez": {"GET": _livez},
    "/metrics": {"GET": _metrics},
}
