"""A request body to a `RecommendationRequest`, or a `BadRequest` that names the field."""

import re

import msgspec

from contracts.errors import BadRequest
from contracts.http import RecommendationRequest

_DECODER = msgspec.json.Decoder(RecommendationRequest)
_AT = re.compile(r" - at (?:`key` in )?`\$\.?(.*)`$")
_NAMED = re.compile(r"(?:missing required|unknown) field `([^`]*)`")


def decode(body: bytes) -> RecommendationRequest:
    """
    Raises:
        BadRequest: not UTF-8, not JSON, or JSON that breaks the schema.
    """
    try:
        request = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise _broken(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    if "\0" in request.user_id:  # the fixed-width id index would cut it off, and so name another user
        raise BadRequest("`user_id`: no id holds a NUL character", field="user_id")
    return request


def field_and_text(message: str) -> tuple[str | None, str]:
    """msgspec says "Expected `int`, got `str` - at `$.k`"; a missing field is named in the text instead."""
    at = _AT.search(message)
    named = _NAMED.search(message)
    path = at.group(1) if at else ""
    return ".".join(filter(None, (path, named.group(1) if named else ""))) or None, _AT.sub("", message)


def _broken(message: str) -> BadRequest:
    field, text = field_and_text(message)
    return BadRequest(f"`{field}`: {text}" if field else text, field=field)
