"""The entry of a Bento: handlers of /v1, /readyz, /livez and /metrics; the rest is BentoML's."""

import functools
import logging
from collections.abc import Callable

import msgspec

from bentos.catalogue import routes as catalogue_routes
from bentos.recommender import log_routes, metrics, openapi
from bentos.recommender.attended import Attended
from bentos.recommender.front import read_deadline, read_front
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
from bentos.recommender.runtime import Answer, Runtime
from contracts.errors import Overloaded
from contracts.http import RecommendationResponse, RecommendedItem
from contracts.serving import UNRANKED

log = logging.getLogger("streamrec.serving")


class Entry(Layer[Runtime]):
    """The Bento's own layer."""

    def __init__(self, inner: ASGIApp, runtime: Callable[[], Runtime | None], *, max_in_flight: int = 512) -> None:
        super().__init__(inner, runtime, ROUTES, loading="the models are being loaded", max_in_flight=max_in_flight)


async def _recommend(scope: Scope, receive: Receive, send: Send, runtime: Runtime, request_id: str) -> int:
    front = read_front(scope, runtime.settings.front_key, request_id)
    within_ms = None if front else read_deadline(scope)
    request = decode(await read_body(scope, receive))
    began = scope["streamrec.began"]
    aim = runtime.admit(began, front, within_ms)  # Overloaded here is a 429: nothing was done yet
    try:
        if aim in UNRANKED:  # before a client could leave
            answer = await runtime.recommend(request, request_id, began, front, aim, within_ms)
        else:
            async with Attended(receive):
                answer = await runtime.recommend(request, request_id, began, front, aim, within_ms)
    except Overloaded as error:  # not even the last rung has anything
        log.error("request %s: %s", request_id, error.message)
        raise HttpProblem(503, "nothing can be served now; /readyz says why", headers=RETRY_SOON) from error
    finally:
        runtime.left(aim)
    body = msgspec.json.encode(_response(answer, runtime.bento))
    await respond(send, 200, body, headers=[(b"x-request-id", answer.query.request_id.encode())])
    runtime.record(answer, header(scope, b"traceparent") if runtime.tracing else None)
    return 200


def _response(answer: Answer, bento: str) -> RecommendationResponse:
    slate = answer.slate
    popular = slate.degradation == "popularity"  # made ahead: thousands of answers a second have the same items
    items = (_same_items if popular else _items)(slate.item_ids, slate.scores, slate.sources)
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
        batch_age_s=slate.batch_age_s,
        debug=debug,
        versions=answer.versions if answer.front else None,
        front=answer.facts,
    )


def _items(
    item_ids: tuple[str, ...], scores: tuple[float, ...], sources: tuple[tuple[str, ...], ...]
) -> list[RecommendedItem]:
    return [
        RecommendedItem(item_id, round(score, 6), position, list(names))
        for position, (item_id, score, names) in enumerate(zip(item_ids, scores, sources, strict=True), start=1)
    ]


_same_items = functools.lru_cache(maxsize=256)(_items)


async def _openapi(scope: Scope, receive: Receive, send: Send, runtime: Runtime, request_id: str) -> int:
    await respond(send, 200, openapi.document(), head=scope["method"] == "HEAD")
    return 200


async def _readyz(scope: Scope, receive: Receive, send: Send, runtime: Runtime, request_id: str) -> int:
    readiness = runtime.readiness()
    status = 503 if readiness.status == "unavailable" else 200
    await respond(send, status, msgspec.json.encode(readiness), head=scope["method"] == "HEAD")
    return status


async def _metrics(scope: Scope, receive: Receive, send: Send, runtime: Runtime, request_id: str) -> int:
    runtime.observe()
    body = runtime.metrics.render()
    await respond(send, 200, body, content_type=metrics.CONTENT_TYPE, head=scope["method"] == "HEAD")
    return 200


ROUTES: Routes = {
    RECOMMENDATIONS: {"POST": _recommend},
    "/v1/events": {"POST": log_routes.events},
    REQUESTS + "{request_id}": {"GET": log_routes.request},
    **catalogue_routes.ROUTES,
    "/v1/openapi.json": {"GET": _openapi},
    "/readyz": {"GET": _readyz},
    "/livez": {"GET": livez},
    "/metrics": {"GET": _metrics},
}
