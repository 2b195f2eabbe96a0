"""The body of `POST /v1/events` as events: decoding is validation, and errors name the field."""

import math
import re
import time
from datetime import datetime

import msgspec

from contracts.errors import BadRequest
from contracts.events import Event
from contracts.http import EventIn

MAX_EVENTS = 1_000
# A consumer's clock may be a little ahead of ours.
MAX_AHEAD_US = 5 * 60 * 1_000_000

_PATH = re.compile(r" - at `(?:key in )?\$(.*)`$")
_NAMED = re.compile(r"(?:required|unknown) field `([^`]+)`")


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    events: list[EventIn]


_LIST = msgspec.json.Decoder(list[EventIn])
_BATCH = msgspec.json.Decoder(_Batch)
_ONE = msgspec.json.Decoder(EventIn)
_KEYS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse_events(body: bytes, received_us: int | None = None) -> list[Event]:
    """Events of a body: a JSON array of 1 to 1,000, the same under `{"events": […]}`, or a single object.

    Raises:
        BadRequest: not JSON, too many or none, a field that is off; `field` is like `events[3].timestamp`.
    """
    if received_us is None:
        received_us = time.time_ns() // 1000
    try:
        incoming = _decode(body)
    except msgspec.ValidationError as error:
        raise _bad_field(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    if not 1 <= len(incoming) <= MAX_EVENTS:
        raise BadRequest(f"a body has 1 to {MAX_EVENTS:,} events, this one has {len(incoming):,}", field="events")
    return [to_event(e, received_us, index) for index, e in enumerate(incoming)]


def to_event(event_in: EventIn, received_us: int, index: int = 0) -> Event:
    """The stored form. `index`: of the event in its body, for the message.

    Raises:
        BadRequest: a timestamp without a zone, unparsable or more than 5 minutes ahead; a value that is no number; a
            NUL character in an id.
    """
    for name in ("event_id", "user_id", "item_id", "event", "request_id"):
        if "\0" in (getattr(event_in, name) or ""):
            raise BadRequest(f"`{name}` has a NUL character", field=f"events[{index}].{name}")
    if event_in.value is not None and not math.isfinite(event_in.value):
        raise BadRequest("`value` is not a finite number", field=f"events[{index}].value")
    return Event(
        event_id=event_in.event_id,
        user_id=event_in.user_id,
        item_id=event_in.item_id,
        event=event_in.event,
        timestamp_us=timestamp_us(event_in.timestamp, received_us, f"events[{index}].timestamp"),
        received_us=received_us,
        request_id=event_in.request_id,
        position=event_in.position,
        value=event_in.value,
        context=event_in.context,
    )


def _decode(body: bytes) -> list[EventIn]:
    start = body.lstrip()[:1]
    if start != b"{":
        return _LIST.decode(body)
    if "events" in _KEYS.decode(body):
        return _BATCH.decode(body).events
    return [_ONE.decode(body)]


def _bad_field(text: str) -> BadRequest:
    """msgspec says `Object missing required field `x` - at `$[3]``; we say `events[3].x`."""
    path = found.group(1) if (found := _PATH.search(text)) else ""
    what = _PATH.sub("", text)
    if not path.startswith(("[", ".events")):
        path = f"[0]{path}" if path or "field `" in text else ""  # a single event, or the body itself
    field = "events" + path.removeprefix(".events")
    if named := _NAMED.search(text):
        field = f"{field}.{named.group(1)}"
    return BadRequest(f"{field}: {what}", field=field)


def timestamp_us(text: str, received_us: int, field: str, max_ahead_us: int = MAX_AHEAD_US) -> int:
    """Microseconds since 1970 of an ISO 8601 time with a zone.

    Raises:
        BadRequest: it is none, before 1970, or more than `max_ahead_us` after `received_us`.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRequest(
            f"{text!r} is not an ISO 8601 time with a zone, like 2026-01-31T12:00:00Z", field=field
        ) from error
    if moment.tzinfo is None:
        raise BadRequest(f"{text!r} has no time zone: append `Z` or an offset like `+02:00`", field=field)
    try:
        delta = moment - _EPOCH
    except OverflowError as error:
        raise BadRequest(f"{text!r} is out of range", field=field) from error
    moment_us = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    if moment_us < 0:
        raise BadRequest(f"{text!r} is before 1970", field=field)
    if moment_us > received_us + max_ahead_us:
        raise BadRequest(f"{text!r} is in the future", field=field)
    return moment_us


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
