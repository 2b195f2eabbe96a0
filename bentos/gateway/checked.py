"""An upstream's answer, held to the contract: what breaks it is a failure of the variant, not the user's problem."""

import math

import msgspec

from contracts.http import RecommendationResponse

_DECODER = msgspec.json.Decoder(RecommendationResponse)


class Broken(Exception):
    """An answer that must not reach a user."""


def checked(body: bytes, request_id: str, user_id: str, k: int) -> RecommendationResponse:
    """
    Raises:
        Broken: not JSON, another schema, of another request or user, or a slate that breaks the contract: ids twice,
            more than k, positions other than 1.., a score that is no finite number.
    """
    try:
        answer = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Broken(f"the answer breaks the schema: {error}") from error
    if answer.user_id != user_id:
        raise Broken("the answer is for another user")
    if answer.versions is not None and answer.request_id != request_id:
        raise Broken("the answer is of another request")
    items = answer.items
    if len(items) > k:
        raise Broken(f"{len(items)} items, {k} were asked for")
    if len({item.item_id for item in items}) != len(items):
        raise Broken("an item twice in one slate")
    for place, item in enumerate(items, start=1):
        if item.position != place:
            raise Broken(f"position {item.position} in place {place}")
        if not math.isfinite(item.score):
            raise Broken(f"the score in place {place} is no finite number")
        if not item.item_id:
            raise Broken(f"no item id in place {place}")
    return answer
