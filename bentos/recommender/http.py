"""HTTP as ASGI messages: a bounded body, an answer, and problem documents (RFC 9457)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec

from bentos.recommender import logs
from contracts.errors import BadRequest, NotFound, Overloaded, StreamRecError, Unreachable
from contracts.http import MAX_BODY_BYTES, Problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

JSON = b"application/json"
PROBLEM_JSON = b"application/problem+json"
PROBLEMS = "urn:streamrec:problem:"
# A body over the limit is read to its end and thrown away, so that the client reads our answer and not a reset
# connection; past this many bytes the connection is closed instead.
DISCARD_BYTES = 32 << 20
BODY_TIMEOUT_S = 10.0
WHOLE = "streamrec.whole"  # in the scope: the server has all of the body already
RETRY_SOON = ((b"retry-after", b"1"),)

TITLES = {
    400: ("bad-request", "The request breaks the schema"),
    401: ("unauthorized", "A token is needed"),
    403: ("forbidden", "This token may not do that"),
    404: ("not-found", "There is no such thing"),
    405: ("method-not-allowed", "This address has another method"),
    409: ("refused", "The state of the service does not allow it"),
    408: ("timeout", "The body did not come in time"),
    413: ("too-large", "The body is over the limit"),
    415: ("unsupported-encoding", "A compressed body"),
    429: ("overloaded", "Too many requests"),
    431: ("header-too-large", "The header is over the limit"),
    500: ("internal", "The service failed"),
    503: ("unavailable", "Nothing can be served now"),
}


class HttpProblem(Exception):
    """An answer that is a problem document."""

    def __init__(
        self, status: int, detail: str, *, field: str | None = None, headers: Headers = (), close: bool = False
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.headers = [*headers, *([(b"connection", b"close")] if close else [])]


class ClientGone(Exception):
    """The client went away before its request was whole: there is nobody to answer."""


def from_error(error: StreamRecError) -> HttpProblem:
    """The one table from our errors to statuses."""
    match error:
        case BadRequest():
            return HttpProblem(400, error.message, field=error.field)
        case NotFound():
            return HttpProblem(404, error.message)
        case Overloaded():
            return HttpProblem(429, error.message, headers=[(b"retry-after", str(error.retry_after_s).encode())])
        case Unreachable():
            # Its message names files and addresses of this machine: that is for /readyz and the log.
            detail = "a part that this request needs does not answer; /readyz names it"
            return HttpProblem(503, detail, headers=RETRY_SOON)
        case _:
            return HttpProblem(500, "the service failed on this request; its log has the cause")


def header(scope: Scope, name: bytes) -> bytes | None:
    """Value of the first header `name` (lower case)."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def read_body(scope: Scope, receive: Receive, limit: int = MAX_BODY_BYTES) -> bytes:
    """
    Raises:
        HttpProblem: 413 over `limit` (with or without a content-length), 408 when it does not come in time, 415 for one
            that is compressed: a kilobyte can become a gigabyte, and no body of ours is worth it.
        ClientGone: the client went away.
    """
    encoding = header(scope, b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        detail = f"send the body as it is, not as {encoding[:32].decode('latin-1')}"
        raise HttpProblem(415, detail, headers=((b"accept-encoding", b"identity"),))
    try:
        if scope.get(WHOLE):
            body = await _read(scope, receive, limit)
        else:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _read(scope, receive, limit)
    except TimeoutError as error:
        raise HttpProblem(408, f"the body did not come within {BODY_TIMEOUT_S:.0f} s", close=True) from error
    if about := logs.about.get():
        about.body = body
    return body


async def _read(scope: Scope, receive: Receive, limit: int) -> bytes:
    declared = header(scope, b"content-length")
    discarding = declared is not None and declared.isdigit() and int(declared) > limit
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        discarding = discarding or size > limit
        if discarding:
            chunks.clear()
        elif chunk:
            chunks.append(chunk)
        more = message.get("more_body", False)
        if discarding and (not more or size > DISCARD_BYTES):
            raise HttpProblem(413, f"a body may have {limit} bytes", close=more)
        if not more:
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def respond(
    send: Send, status: int, body: bytes, *, content_type: bytes = JSON, headers: Headers = (), head: bool = False
) -> None:
    """`head`: the answer to a HEAD request, all but the body."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *headers],
        }
    )
    await send({"type": "http.response.body", "body": b"" if head else body})


def problem_document(problem: HttpProblem, request_id: str) -> bytes:
    slug, title = TITLES[problem.status]
    document = Problem(
        type=PROBLEMS + slug,
        title=title,
        status=problem.status,
        detail=problem.detail,
        request_id=request_id,
        field=problem.field,
    )
    return msgspec.json.encode(document)


async def respond_problem(send: Send, problem: HttpProblem, request_id: str) -> None:
    await respond(
        send,
        problem.status,
        problem_document(problem, request_id),
        content_type=PROBLEM_JSON,
        headers=[(b"x-request-id", request_id.encode()), *problem.headers],
    )
