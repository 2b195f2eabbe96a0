"""Bodies of the catalogue's addresses as changes: decoding is validation, and errors name the field."""

import math
import time

import msgspec

from bentos.recommender.requests import field_and_text
from bentos.telemetry.events_in import timestamp_us
from contracts.errors import BadRequest
from contracts.http import FlagIn, ItemIn
from contracts.live_items import ItemChange, ItemFacts

MAX_ITEMS = 1_000
MAX_ID = 256
# An item may be announced long ahead; a year of it is a mistake in the unit.
MAX_AHEAD_US = 366 * 86_400 * 1_000_000


class _Items(msgspec.Struct, forbid_unknown_fields=True):
    items: list[ItemIn]


_LIST = msgspec.json.Decoder(list[ItemIn])
_ITEMS = msgspec.json.Decoder(_Items)
_FLAG = msgspec.json.Decoder(FlagIn)


def parse_items(body: bytes, now_us: int | None = None) -> list[ItemChange]:
    """A JSON array of 1 to 1,000 items, or the same under `{"items": […]}`.

    Raises:
        BadRequest: not JSON, none or too many, an item twice, a field that is off; `field` is like `items[3].price`.
    """
    now_us = time.time_ns() // 1000 if now_us is None else now_us
    listed = body.lstrip()[:1] != b"{"
    try:
        items = _LIST.decode(body) if listed else _ITEMS.decode(body).items
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(error, "items" if listed else "") from error
    if not 1 <= len(items) <= MAX_ITEMS:
        raise BadRequest(f"a body has 1 to {MAX_ITEMS:,} items, this one has {len(items):,}", field="items")
    changes: dict[str, ItemChange] = {}
    for index, item in enumerate(items):
        if item.item_id in changes:
            raise BadRequest(f"item {item.item_id!r} stands twice", field=f"items[{index}].item_id")
        changes[item.item_id] = _put(item, index, now_us)
    return list(changes.values())


def parse_flag(item_id: str, body: bytes, now_us: int | None = None) -> ItemChange:
    """`{"flagged": false}` takes a flag back; an empty body sets one.

    Raises:
        BadRequest: not JSON, another field, or an id that none can have.
    """
    try:
        flag = _FLAG.decode(body) if body.strip() else FlagIn()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(error, "") from error
    return ItemChange(checked_id(item_id), "flag", _now(now_us), flagged=flag.flagged)


def removal(item_id: str, now_us: int | None = None) -> ItemChange:
    """
    Raises:
        BadRequest: an id that none can have.
    """
    return ItemChange(checked_id(item_id), "remove", _now(now_us))


def checked_id(item_id: str) -> str:
    """
    Raises:
        BadRequest: empty, too long, a NUL character in it, or not UTF-8.
    """
    if not 1 <= len(item_id) <= MAX_ID:
        raise BadRequest(f"an item id has 1 to {MAX_ID} characters", field="item_id")
    if "\0" in item_id:
        raise BadRequest("no id holds a NUL character", field="item_id")
    try:
        item_id.encode()
    except UnicodeEncodeError as error:
        raise BadRequest("an item id is UTF-8", field="item_id") from error
    return item_id


def _put(item: ItemIn, index: int, now_us: int) -> ItemChange:
    field = f"items[{index}]"
    for name in ("item_id", "category", "creator_id"):
        text = getattr(item, name) or ""
        if "\0" in text:  # the fixed-width id index would cut it off, and so name another item
            raise BadRequest(f"`{name}` has a NUL character", field=f"{field}.{name}")
    if item.price is not None and not (math.isfinite(item.price) and item.price >= 0):
        raise BadRequest("`price` is a finite number, zero or more", field=f"{field}.price")
    published_us = None
    if item.published_at is not None:
        published_us = timestamp_us(item.published_at, now_us, f"{field}.published_at", MAX_AHEAD_US)
    facts = ItemFacts(item.category, item.creator_id, item.price, published_us, item.is_promoted, item.title)
    return ItemChange(item.item_id, "put", now_us, facts, item.is_flagged)


def _bad(error: Exception, prefix: str) -> BadRequest:
    if not isinstance(error, msgspec.ValidationError):
        return BadRequest(f"the body is not valid JSON: {error}")
    field, text = field_and_text(str(error))
    field = prefix + (field or "")
    return BadRequest(f"`{field}`: {text}" if field else text, field=field or None)


def _now(now_us: int | None) -> int:
    return time.time_ns() // 1000 if now_us is None else now_us
