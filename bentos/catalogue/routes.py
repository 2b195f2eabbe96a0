"""The live catalogue over HTTP, the same on a Bento and on a gateway: all of it durable, idempotent, by token."""

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import unquote

import msgspec

from bentos.catalogue.items_in import parse_flag, parse_items, removal
from bentos.catalogue.paths import FLAG, ITEM, ITEMS, quoted
from bentos.recommender.http import RETRY_SOON, HttpProblem, Receive, Scope, Send, read_body, respond
from bentos.recommender.layer import Routes
from bentos.recommender.token import need_token
from contracts.errors import BadRequest, Refused, Unreachable
from contracts.http import ItemsChanged
from contracts.live_items import ItemChange
from contracts.settings import Settings


class Catalogue(Protocol):
    settings: Settings

    async def change_items(self, changes: Sequence[ItemChange]) -> ItemsChanged: ...


async def put_items(scope: Scope, receive: Receive, send: Send, runtime: Catalogue, request_id: str) -> int:
    need_token(scope, runtime.settings)
    return await _change(send, runtime, parse_items(await read_body(scope, receive)), request_id)


async def flag_item(scope: Scope, receive: Receive, send: Send, runtime: Catalogue, request_id: str) -> int:
    need_token(scope, runtime.settings)
    body = await read_body(scope, receive)
    return await _change(send, runtime, [parse_flag(_item_id(scope, "/flag"), body)], request_id)


async def remove_item(scope: Scope, receive: Receive, send: Send, runtime: Catalogue, request_id: str) -> int:
    need_token(scope, runtime.settings)
    await read_body(scope, receive)
    return await _change(send, runtime, [removal(_item_id(scope, ""))], request_id)


async def _change(send: Send, runtime: Catalogue, changes: Sequence[ItemChange], request_id: str) -> int:
    """200 after the changes are durable."""
    try:
        changed = await runtime.change_items(changes)
    except Refused as error:
        raise HttpProblem(409, error.message) from error
    except Unreachable as error:
        detail = "the change is not stored: send it again; /readyz says why"
        raise HttpProblem(503, detail, headers=RETRY_SOON) from error
    await respond(send, 200, msgspec.json.encode(changed), headers=[(b"x-request-id", request_id.encode())])
    return 200


def _item_id(scope: Scope, ending: str) -> str:
    id_ = quoted(scope).removesuffix(ending)
    if "/" in id_:
        raise HttpProblem(404, f"there is no {scope['path']}: in an item id / is written %2F, as in {ITEM}")
    try:
        return unquote(id_, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest("an item id is UTF-8", field="item_id") from error


ROUTES: Routes = {ITEMS: {"PUT": put_items}, ITEM: {"DELETE": remove_item}, FLAG: {"POST": flag_item}}
