"""The stored form of an event."""

import msgspec

# What the service did, not what the user did.
IMPRESSION = "impression"


class Event(msgspec.Struct, frozen=True, array_like=True):
    """Schema 1. `timestamp_us`: microseconds since 1970 UTC, when it happened; `received_us`: when it was accepted."""

    event_id: str
    user_id: str
    item_id: str
    event: str
    timestamp_us: int
    received_us: int
    request_id: str | None = None
    position: int | None = None
    value: float | None = None
    context: dict[str, str] = {}
    schema: int = 1
