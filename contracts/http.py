"""Requests and responses of `/v1`, as msgspec structs: decoding is validation, and errors name the field."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from contracts.exposures import States, Versions
from contracts.serving import Degradation, Variant

MAX_BODY_BYTES = 1 << 20
MAX_K = 500

Id = Annotated[str, Meta(min_length=1, max_length=256)]
ContextKey = Annotated[str, Meta(max_length=256)]
Context = Annotated[dict[ContextKey, Annotated[str, Meta(max_length=256)]], Meta(max_length=32)]


class RecommendationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user_id: Id
    k: Annotated[int, Meta(ge=1, le=MAX_K)] = 20
    context: Context = {}
    exclude: Annotated[list[Id], Meta(max_length=10_000)] = []
    debug: bool = False


class RecommendedItem(msgspec.Struct, frozen=True):
    item_id: str
    score: float
    position: int  # from 1
    sources: list[str]


class FrontFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What only the Bento knows of a request and a gateway must log.

    clock_us: the data set's clock. panel: edge cases that the request is: `new_user`, `missing_features`,
    `stale_features`, `new_items`, `no_context`.
    """

    clock_us: int = 0
    panel: list[str] = []
    states: States | None = None


class RecommendationResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    request_id: str
    user_id: str
    items: list[RecommendedItem]
    degradation: Degradation
    ranked_by: str
    bento: str
    variant: Variant = msgspec.field(default_factory=lambda: "champion")  # default_factory: always on the wire
    experiments: dict[str, str] = msgspec.field(default_factory=dict)
    batch_age_s: float | None = None  # of the rung `batch`: how old the list is
    debug: dict[str, Any] | None = None
    versions: Versions | None = None  # these two only for a gateway, which logs the exposure
    front: FrontFacts | None = None


class EventIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing a user did. `timestamp`: ISO 8601 with a zone."""

    event_id: Id
    user_id: Id
    item_id: Id
    event: Annotated[str, Meta(min_length=1, max_length=64)]
    timestamp: Annotated[str, Meta(max_length=64, extra_json_schema={"format": "date-time"})]
    request_id: Annotated[str, Meta(max_length=64)] | None = None
    position: Annotated[int, Meta(ge=1, le=MAX_K)] | None = None
    value: float | None = None
    context: Context = {}


class EventsAccepted(msgspec.Struct, frozen=True):
    accepted: int
    duplicates: int


class ItemIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item as it is from now on: what is left out is not known of it, but for two things. `published_at` (ISO 8601
    with a zone): stays as it was, for a new item now. `is_flagged`: stays as it was.
    """

    item_id: Id
    category: Annotated[str, Meta(max_length=256)]
    creator_id: Id | None = None
    price: Annotated[float, Meta(ge=0)] | None = None
    published_at: Annotated[str, Meta(max_length=64)] | None = None
    is_promoted: bool = False
    is_flagged: bool | None = None
    title: Annotated[str, Meta(max_length=1000)] | None = None


class FlagIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    flagged: bool = True


class ItemsChanged(msgspec.Struct, frozen=True):
    """version: of the catalogue, with these changes in it. changed: ids whose state is another now."""

    version: int
    changed: list[str]
    unchanged: int


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    field: str | None = None
