"""What a gateway and a Bento say to each other beside `/v1`: headers of the request, one field of the answer.

A Bento heeds them only from a caller that shows the front key (`Settings.front_key`), compared in constant time; the
deadline alone also from consumers, who have the same header at a gateway. With the key the gateway is the front
process: the Bento writes no exposure of its own, answers under the id it was given, within the time that is left, and
puts its `Versions` into the answer.
"""

import re

import msgspec

from contracts.rules import RulesDocument

KEY = b"x-streamrec-front"
REQUEST_ID = b"x-request-id"
DEADLINE_MS = b"x-streamrec-deadline-ms"  # time left, a decimal number; the one that consumers may send too
MOST_MS = 60_000  # a consumer may say
OVERRIDES = b"x-streamrec-overrides"  # `FrontOverrides` as JSON; absent: none
SHADOW = b"x-streamrec-shadow"  # `1`: nobody sees the answer; it remembers no slate and logs no context
RUNG = b"x-streamrec-rung"  # `popularity`: answer from that list (the gateway keeps it for its last resort)
TRACEPARENT = b"traceparent"  # W3C; a gateway hands on what a consumer sends, once it is one
_W3C = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent(value: bytes | None) -> str | None:
    """The header's value, if it is one."""
    return value.decode() if value is not None and _W3C.fullmatch(value) else None


class FrontOverrides(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """rules: a whole document, as a Bento does not read routing tables; it keeps the parsed form by this text."""

    rules: dict[str, object] | None = None
    sources_off: tuple[str, ...] = ()

    @classmethod
    def of(cls, rules: RulesDocument | None, sources_off: tuple[str, ...]) -> "FrontOverrides":
        return cls(None if rules is None else rules.model_dump(mode="json"), sources_off)
