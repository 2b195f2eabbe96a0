"""The champion's popularity list, asked for as a Bento's own rung."""

import time

import msgspec

from bentos.gateway.checked import Broken, checked
from bentos.gateway.last_resort import Popular
from bentos.gateway.upstream import Address, Failed
from bentos.recommender.layer import RECOMMENDATIONS
from bentos.recommender.request_ids import new_request_id
from contracts import front
from contracts.errors import Refused
from contracts.http import MAX_K

USER = "streamrec-popularity"  # nobody: no history, nothing seen
PATIENCE_S = 5.0


async def fetch(address: Address, headers: dict[str, str], bento: str) -> Popular:
    """
    Raises:
        Refused: no answer, or not a popularity list.
    """
    request_id = new_request_id()
    asked = {
        **headers,
        front.REQUEST_ID.decode(): request_id,
        front.DEADLINE_MS.decode(): str(PATIENCE_S * 900),
        front.SHADOW.decode(): "1",
        front.RUNG.decode(): "popularity",
    }
    body = msgspec.json.encode({"user_id": USER, "k": MAX_K})
    try:
        reply = await address.post(RECOMMENDATIONS, body, asked, PATIENCE_S)
        if reply.status != 200:
            raise Refused(f"{bento} gave no popularity list: HTTP {reply.status}")
        answer = checked(reply.body, request_id, USER, MAX_K)
    except (Failed, Broken) as error:
        raise Refused(f"{bento} gave no popularity list: {error}") from error
    if answer.degradation != "popularity" or not answer.items:
        raise Refused(f"{bento} gave {len(answer.items)} items of the rung `{answer.degradation}`, not popularity")
    return Popular(bento, time.time_ns() // 1000, answer.items)
