"""The outermost ASGI layer of a service: it answers what its routes name, and hands everything else to BentoML.

Outermost because the framework's stack costs more than the recommendation, and because its own /readyz and /metrics
win over anything mounted inside.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client import Counter

from bentos.catalogue import paths
from bentos.recommender import logs
from bentos.recommender.health import Phase
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
    respond,
    respond_problem,
)
from bentos.recommender.request_ids import new_request_id
from bentos.recommender.tally import Counts, Level
from contracts.errors import Overloaded, StreamRecError

log = logging.getLogger("streamrec.serving")

RECOMMENDATIONS = "/v1/recommendations"
REQUESTS = "/v1/requests/"


class LayerMetrics(Protocol):
    in_flight: Level
    requests: Counts
    errors: Counter


class Serving(Protocol):
    """What a layer needs of the runtime behind it."""

    phase: Phase

    @property
    def metrics(self) -> LayerMetrics: ...


R = TypeVar("R", bound=Serving)
Handler = Callable[[Scope, Receive, Send, Any, str], Awaitable[int]]
Routes = Mapping[str, Mapping[str, Handler]]


class Layer(Generic[R]):
    """
    Args:
        inner: BentoML's application.
        runtime: the process's runtime, or None while it is being made.
        routes: path → method → handler. A handler gets the runtime and the request id, and returns the status.
        loading: what a 503 says until the runtime is there.
        max_in_flight: requests being answered at once; the next one gets a 429. Half of that beside recommendations:
            those wait for a log and for another process, and recommendations must go on when that one hangs.
    """

    def __init__(
        self,
        inner: ASGIApp,
        runtime: Callable[[], R | None],
        routes: Routes,
        *,
        loading: str,
        max_in_flight: int,
    ) -> None:
        self._inner = inner
        self._runtime = runtime
        self._routes = routes
        self._loading = loading
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._max_beside = max(max_in_flight // 2, 1)
        self._beside = 0  # of them, those for other routes than recommendations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        path = scope["path"]
        route = _route(scope, path)
        methods = self._routes.get(route)
        if methods is None and not path.startswith("/v1"):
            await self._inner(scope, receive, send)
            return
        began = time.perf_counter()
        scope["streamrec.began"] = began
        request_id = new_request_id()
        logs.about.set(logs.About(request_id))
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
            runtime.metrics.requests.add(route if methods else "unknown", str(status))

    async def _answer(
        self, scope: Scope, receive: Receive, send: "_Sent", runtime: R | None, request_id: str, route: str
    ) -> int:
        methods = self._routes.get(route)
        if methods is None:
            raise HttpProblem(404, f"there is no {scope['path']}; /v1/openapi.json names what there is")
        method = "GET" if scope["method"] == "HEAD" and "GET" in methods else scope["method"]
        if method not in methods:
            allowed = ", ".join(methods)
            raise HttpProblem(405, f"{scope['path']} answers {allowed}", headers=[(b"allow", allowed.encode())])
        if runtime is None or runtime.phase in ("loading", "stopped"):
            if route == "/livez":
                return await livez(scope, receive, send, None, request_id)
            raise HttpProblem(503, self._loading, headers=RETRY_SOON)
        if not route.startswith("/v1/"):
            return await methods[method](scope, receive, send, runtime, request_id)
        if self._in_flight > self._max_in_flight:
            raise from_error(Overloaded(f"{self._max_in_flight} requests are being answered"))
        if route == RECOMMENDATIONS:
            return await methods[method](scope, receive, send, runtime, request_id)
        if self._beside >= self._max_beside:
            raise from_error(Overloaded(f"{self._max_beside} requests beside recommendations are being answered"))
        self._beside += 1
        try:
            return await methods[method](scope, receive, send, runtime, request_id)
        finally:
            self._beside -= 1


def _route(scope: Scope, path: str) -> str:
    if path.startswith(REQUESTS):
        return REQUESTS + "{request_id}"
    return paths.route_of(scope) if path.startswith(paths.UNDER_ITEMS) else path


class _Sent:
    """`send` that knows whether the answer has begun."""

    __slots__ = ("_send", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        await self._send(message)


async def livez(scope: Scope, receive: Receive, send: Send, runtime: Serving | None, request_id: str) -> int:
    await respond(send, 200, b'{"status":"alive"}', head=scope["method"] == "HEAD")
    return 200
