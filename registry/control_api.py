"""The controller's own HTTP interface, on 127.0.0.1: releases, for scripts that are not on the command line.

    GET  /v1/releases            what `release status --json` says
    GET  /v1/releases/history    the audit; ?subject=…&limit=…
    POST /v1/releases/{start|shadow|canary|ab|promote|rollback|pause|resume}
    GET  /livez, /readyz

`Authorization: Bearer TOKEN` on all of /v1; 401 without a token, 403 without the right, both as problem documents.
"""

import json
import logging
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts.errors import NotFound, Refused, StreamRecError, Unreachable, UsageError
from contracts.routing import Percent
from contracts.rules import RulesDocument
from contracts.settings import Settings
from registry.access import Forbidden, authorise
from registry.control.store import ControlStore
from registry.releases import commands
from registry.releases.candidate import read_evidence_in_a_process
from registry.releases.result import Result

log = logging.getLogger("streamrec.controller")

MAX_BODY = 64 * 1024
MAX_HISTORY = 1000
Text = Annotated[str, Field(max_length=2000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Text = ""
    dry_run: bool = False


class _Start(_Body):
    tag: Annotated[str, Field(max_length=256)] | None = None
    rules: RulesDocument | None = None
    policy: Annotated[str, Field(max_length=128)] | None = None
    hypothesis: Text = ""
    supersede: bool = False
    accept_inconclusive: bool = False


class _Go(_Body):
    weight: Percent | None = None


class _Promote(_Body):
    force: bool = False


Do = Callable[[str | None, dict[str, Any]], Result]


def control_app(
    store: ControlStore, settings: Settings, *, clock_us: Callable[[], int], ready: Callable[[], dict[str, Any]]
) -> Starlette:
    """
    Args:
        ready: `status` (`ready`, `standby` or `unavailable`) and whatever else `/readyz` should say.
    """

    def start(token: str | None, body: dict[str, Any]) -> Result:
        if (body["tag"] is None) == (body["rules"] is None):
            raise UsageError("give `tag` or `rules`")
        policy = body.pop("policy") or ("rules" if body["rules"] else "default")
        body["rules"] = RulesDocument.model_validate(body["rules"]) if body["rules"] else None
        return commands.start(
            store,
            settings,
            token,
            policy=policy,
            now_us=clock_us(),
            evidence=read_evidence_in_a_process,
            **body,
        )

    def step(kind: Literal["shadow", "canary", "ab"]) -> Do:
        return lambda token, body: commands.go(store, settings, token, kind=kind, now_us=clock_us(), **body)

    def plain(operation: Callable[..., Result]) -> Do:
        return lambda token, body: operation(store, settings, token, now_us=clock_us(), **body)

    operations: dict[str, tuple[type[_Body], Do]] = {
        "start": (_Start, start),
        "shadow": (_Body, step("shadow")),
        "canary": (_Go, step("canary")),
        "ab": (_Go, step("ab")),
        "promote": (_Promote, plain(commands.promote)),
        "rollback": (_Body, plain(commands.rollback)),
        "pause": (_Body, plain(commands.pause)),
        "resume": (_Body, plain(commands.resume)),
    }

    async def change(request: Request) -> Response:
        token = await run_in_threadpool(_token, request, store)
        name = request.path_params["operation"]
        if name not in operations:
            raise NotFound(f"no operation {name}; one of {', '.join(operations)}")
        model, operation = operations[name]
        body = model.model_validate_json(await _body(request)).model_dump(mode="json")
        result = await run_in_threadpool(operation, token, body)
        return JSONResponse(result.document())

    def read(request: Request, what: Callable[[], Any]) -> Any:
        authorise(store, _token(request, store), "viewer", action="release.read", subject="-", now_us=clock_us())
        return what()

    async def releases(request: Request) -> Response:
        limit = _limit(request, 20)
        return JSONResponse(
            await run_in_threadpool(
                read, request, lambda: commands.status(store, settings, now_us=clock_us(), limit=limit)
            )
        )

    async def history(request: Request) -> Response:
        limit = _limit(request, 100)
        subject = request.query_params.get("subject")

        def entries() -> list[dict[str, Any]]:
            return [
                {"number": e.number, "at_us": e.at_us, "actor": e.actor, "action": e.action, "subject": e.subject,
                 "detail": e.detail, "previous": e.previous, "digest": e.digest}
                for e in store.history(subject, limit)
            ]  # fmt: skip

        return JSONResponse({"entries": await run_in_threadpool(read, request, entries)})

    async def livez(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:
        said = ready()
        return JSONResponse(said, 503 if said["status"] == "unavailable" else 200)

    return Starlette(
        routes=[
            Route("/v1/releases", _answering(releases)),
            Route("/v1/releases/history", _answering(history)),
            Route("/v1/releases/{operation}", _answering(change), methods=["POST"]),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ],
    )


class _TooLarge(StreamRecError):
    pass


class _NoToken(StreamRecError):
    pass


def _token(request: Request, store: ControlStore) -> str:
    """While no token exists, who may open the database file is admin; whoever reaches a port has shown nothing."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise _NoToken("send `Authorization: Bearer TOKEN`")
    if all(t.revoked_us is not None for t in store.tokens()):
        raise Forbidden("no token exists so far", next_command="streamrec access create NAME --role admin")
    return token.strip()


async def _body(request: Request) -> bytes:
    """At most 64 KiB; nothing is an empty document."""
    found = b""
    async for chunk in request.stream():
        found += chunk
        if len(found) > MAX_BODY:
            raise _TooLarge(f"a body is at most {MAX_BODY} bytes")
    return found or b"{}"


def _limit(request: Request, default: int) -> int:
    text = request.query_params.get("limit", str(default))
    if not text.isdigit() or not 1 <= int(text) <= MAX_HISTORY:
        raise UsageError(f"`limit` is 1 to {MAX_HISTORY}")
    return int(text)


# First match wins.
STATUS: tuple[tuple[type[StreamRecError], HTTPStatus], ...] = (
    (_NoToken, HTTPStatus.UNAUTHORIZED),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (_TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (Refused, HTTPStatus.CONFLICT),
    (NotFound, HTTPStatus.NOT_FOUND),
    (UsageError, HTTPStatus.BAD_REQUEST),
    (Unreachable, HTTPStatus.SERVICE_UNAVAILABLE),
)


def _answering(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Errors as problem documents (RFC 9457)."""

    async def wrapped(request: Request) -> Response:
        request_id = str(uuid.uuid4())
        try:
            return await handler(request)
        except ValidationError as error:
            first = error.errors()[0]
            return _problem(HTTPStatus.BAD_REQUEST, first["msg"], request_id, field=".".join(map(str, first["loc"])))
        except StreamRecError as error:
            status = next((s for kind, s in STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
            return _problem(status, error.message, request_id, next=error.next_command)
        except Exception:
            log.exception("request %s", request_id)
            return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of ours; the log has it", request_id)

    return wrapped


def _problem(status: HTTPStatus, detail: str, request_id: str, **more: str | None) -> Response:
    document = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "request_id": request_id,
        **{key: value for key, value in more.items() if value},
    }
    headers = {"www-authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    return Response(json.dumps(document), int(status), headers, "application/problem+json")
