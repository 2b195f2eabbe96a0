"""The two addresses that read and write logs, the same on a Bento and on a gateway."""

import re
from typing import Protocol

import msgspec

from bentos.recommender.http import RETRY_SOON, HttpProblem, Receive, Scope, Send, read_body, respond
from bentos.recommender.layer import REQUESTS
from bentos.recommender.token import need_token
from contracts.errors import Unreachable
from contracts.exposures import ContextRecord
from contracts.http import EventsAccepted
from contracts.settings import Settings

REQUEST_ID = re.compile(r"^[0-9a-f-]{36}$")


class Logs(Protocol):
    settings: Settings

    async def accept_events(self, body: bytes) -> EventsAccepted: ...
    async def find_context(self, request_id: str) -> ContextRecord | None: ...


async def events(scope: Scope, receive: Receive, send: Send, runtime: Logs, request_id: str) -> int:
    """202 after the events are durable."""
    body = await read_body(scope, receive)
    try:
        accepted = await runtime.accept_events(body)
    except Unreachable as error:
        detail = "the events are not stored: send them again with the same `event_id`; /readyz says why"
        raise HttpProblem(503, detail, headers=RETRY_SOON) from error
    await respond(send, 202, msgspec.json.encode(accepted), headers=[(b"x-request-id", request_id.encode())])
    return 202


async def request(scope: Scope, receive: Receive, send: Send, runtime: Logs, request_id: str) -> int:
    """The logged context of one request: for whoever holds the token, as it names what a user did."""
    need_token(scope, runtime.settings)
    wanted = scope["path"].removeprefix(REQUESTS)
    if not REQUEST_ID.match(wanted):
        raise HttpProblem(400, "a request id is a UUID", field="request_id")
    record = await runtime.find_context(wanted)
    if record is None:
        raise HttpProblem(404, f"no context was logged for request {wanted}")
    document = msgspec.to_builtins(record)
    del document["packed"]  # it is in `candidates`
    await respond(send, 200, msgspec.json.encode(document), headers=[(b"x-request-id", request_id.encode())])
    return 200
