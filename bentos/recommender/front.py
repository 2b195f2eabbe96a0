"""A gateway in front of this Bento: what its headers say, and what it is told beside the slate.

Only a caller that shows the front key is heard; from anybody else these headers mean nothing, but for the deadline.
"""

import hmac
import math
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import msgspec
from pydantic import ValidationError

from bentos.recommender.funnel import Funnel
from bentos.recommender.http import Scope, header
from bentos.recommender.models import Models
from bentos.recommender.types import Query, Slate
from contracts import front
from contracts.errors import BadRequest
from contracts.exposures import States
from contracts.front import FrontOverrides
from contracts.http import FrontFacts
from contracts.rules import RulesDocument
from contracts.serving import SOURCES

NAMES = frozenset({front.KEY, front.REQUEST_ID, front.DEADLINE_MS, front.OVERRIDES, front.SHADOW, front.RUNG})
REMEMBERED = 16  # documents, parsed and made into a funnel
_DECIMAL = re.compile(rb"[0-9]{1,6}(\.[0-9]{1,6})?")
_OVERRIDES = msgspec.json.Decoder(FrontOverrides)


@dataclass(frozen=True, slots=True)
class Front:
    """What the gateway says of one request. overrides: as it came."""

    request_id: str
    deadline_ms: float | None = None
    overrides: bytes = b""
    shadow: bool = False
    rung: Literal["popularity"] | None = None


def read_front(scope: Scope, key: str | None, request_id: str) -> Front | None:
    """None: the caller is a consumer. request_id: where the gateway gives none.

    Raises:
        BadRequest: our gateway says what it never says.
    """
    if not key:  # an empty one would be known to everybody
        return None
    found = {name: value for name, value in scope["headers"] if name in NAMES}
    shown = found.get(front.KEY)
    if shown is None or not hmac.compare_digest(shown, key.encode()):
        return None
    rung = found.get(front.RUNG)
    if rung not in (None, b"popularity"):
        raise BadRequest("there is no such rung to ask for", field=front.RUNG.decode())
    given = found.get(front.REQUEST_ID, b"").decode("latin-1")
    if len(given) > 64:
        raise BadRequest("a request id has at most 64 characters", field=front.REQUEST_ID.decode())
    return Front(
        request_id=given or request_id,
        deadline_ms=_milliseconds(found.get(front.DEADLINE_MS)),
        overrides=found.get(front.OVERRIDES, b""),
        shadow=found.get(front.SHADOW) == b"1",
        rung="popularity" if rung else None,
    )


def _milliseconds(value: bytes | None) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRequest("the time left is a number of milliseconds", field=front.DEADLINE_MS.decode())
    return number


def read_deadline(scope: Scope) -> float | None:
    """What a consumer gives us, milliseconds; None: our own deadline. It can only shorten that.

    Raises:
        BadRequest: no number of milliseconds, or none between 0 and 60,000.
    """
    value = header(scope, front.DEADLINE_MS)
    if value is None:
        return None
    if not _DECIMAL.fullmatch(value) or not 0 < float(value) <= front.MOST_MS:
        raise BadRequest(
            f"a number of milliseconds, over 0 and at most {front.MOST_MS}", field=front.DEADLINE_MS.decode()
        )
    return float(value)


class Overridden:
    """Funnels under other rules, by the header that orders them: made once, a few remembered."""

    def __init__(self, funnel: Funnel) -> None:
        self._funnel = funnel
        self._made: OrderedDict[bytes, tuple[Funnel, tuple[str, ...]]] = OrderedDict()

    def by(self, overrides: bytes) -> tuple[Funnel, tuple[str, ...]]:
        """The funnel that answers, and the sources that are off.

        Raises:
            BadRequest: not overrides, a document that breaks its schema, or no source left.
        """
        if not overrides:
            return self._funnel, ()
        made = self._made.get(overrides)
        if made is None:
            made = self._made[overrides] = self._make(overrides)
            if len(self._made) > REMEMBERED:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(overrides)
        return made

    def _make(self, overrides: bytes) -> tuple[Funnel, tuple[str, ...]]:
        name = front.OVERRIDES.decode()
        try:
            found = _OVERRIDES.decode(overrides)
            rules = None if found.rules is None else RulesDocument.model_validate(found.rules)
        except (msgspec.DecodeError, UnicodeDecodeError, ValidationError) as error:
            raise BadRequest(f"no overrides: {error}", field=name) from error
        off = tuple(source for source in SOURCES if source in found.sources_off)
        if len(off) < len(set(found.sources_off)) or len(off) == len(SOURCES):
            raise BadRequest("`sources_off` names a source that is none, or all of them", field=name)
        return (self._funnel if rules is None else self._funnel.under(rules)), off


def facts(query: Query, slate: Slate, models: Models, states: States) -> FrontFacts:
    """The data set's clock, the states that the answer hung on, and which edge cases this request is."""
    retrieval = models.retrieval
    panel = []
    if retrieval is not None and retrieval.users.lookup(query.user_id) < 0:
        panel.append("new_user")
    if any(feature.source == "default" for feature in slate.used):
        panel.append("missing_features")
    if slate.stale:
        panel.append("stale_features")
    if retrieval is not None and slate.item_ids:
        rows = models.index.lookup_many(list(slate.item_ids))
        if (models.catalogue.published_us[rows[rows >= 0]] > retrieval.trained_until_us).any():
            panel.append("new_items")
    if not query.context:
        panel.append("no_context")
    return FrontFacts(clock_us=query.now_us, panel=panel, states=states)
