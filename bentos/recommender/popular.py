"""The popularity rung, made ahead: one slate for each country and k, which most users can be given as it is.

Filters and re-rankers over the hundred best items cost more than all the rest of such an answer, and for everybody who
has met none of the k that it shows they come to the same: leaving out an item that would not have been chosen changes
neither which are, nor their order. So the slate is made for a user who has met nothing, and the filters, all of them,
look at its k items for each request. Where they drop any, the slate is chosen from the list as on the other rungs.
"""

import time
from dataclasses import dataclass

import numpy as np

from bentos.recommender.filtering import keep_allowed
from bentos.recommender.inflight import InFlight
from bentos.recommender.lists import Lists
from bentos.recommender.slates import ids_of
from bentos.recommender.stages import Stages
from bentos.recommender.types import Candidates, Query, Slate, User
from features.online.base import UserState

FRESH_S = 0.25  # how long a slate that was made is given: time goes on, and items come and go
FRESH_US = 1_000_000  # of the data set's clock
REMEMBERED = 256
NO_ITEMS = np.empty(0, np.int32)
NOBODY = User(-1, UserState(""), NO_ITEMS, np.empty(0, np.float32), NO_ITEMS)


@dataclass(frozen=True, slots=True)
class _Made:
    shown: Candidates
    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    sources: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    made_at: float  # perf_counter seconds
    now_us: int


class Popular:
    """On the event loop's thread."""

    def __init__(self, stages: Stages, lists: Lists) -> None:
        self._stages = stages
        self._lists = lists
        self._made: dict[tuple[str, int], _Made] = {}

    def candidates(self, query: Query, user: User) -> Candidates:
        """At least k allowed items where there are so many; reads no further into the list than that asks for."""
        n = 2 * query.k + 100  # the same for all: what is made for nobody is then what anybody would be given
        while True:
            listed = self._lists.popularity(query, n)
            allowed = keep_allowed(self._stages.filters, query, user, listed)[0]
            if len(allowed) >= query.k or len(listed) < n:
                return listed
            n *= 8

    def slate(self, flight: InFlight, user: User) -> Slate | None:
        """The slate that was made ahead, if all of it may be shown to this user. None: choose one."""
        query = flight.query
        if query.debug:  # which wants to see how it was chosen
            return None
        made = self._for(query)
        if made is None:
            return None
        allowed, _, _ = keep_allowed(self._stages.filters, query, user, made.shown)
        if len(allowed) < len(made.shown):
            return None
        return Slate(
            item_ids=made.item_ids,
            scores=made.scores,
            sources=made.sources,
            degradation="popularity",
            ranked_by="popularity",
            stale=flight.stale,
            notes=(*flight.notes, *made.notes),
            stages_ms=flight.trace.stages_ms,
            trace=flight.trace,
            used=flight.used or user.used,
            state=flight.state or user.state,
            aim=query.aim,
        )

    def _for(self, query: Query) -> _Made | None:
        """None: there is nothing to show."""
        key = (self._lists.country(query), query.k)
        now = time.perf_counter()
        made = self._made.get(key)
        if made is None or now - made.made_at > FRESH_S or abs(query.now_us - made.now_us) > FRESH_US:
            made = self._make(query, now)
            if made is None:
                return None
            if len(self._made) >= REMEMBERED:
                self._made.clear()
            self._made[key] = made
        return made

    def _make(self, query: Query, now: float) -> _Made | None:
        anybody = Query("", "", query.k, query.now_us, query.deadline, query.context)
        flight = InFlight(anybody)
        listed = self.candidates(anybody, NOBODY)
        allowed, _, flight.notes = keep_allowed(self._stages.filters, anybody, NOBODY, listed)
        if not len(allowed):
            return None
        shown, _ = self._stages.rerank(flight, allowed, self._stages.rerankers)
        return _Made(
            shown,
            ids_of(self._stages.models.catalogue.item_ids, shown.items),
            tuple(shown.score.tolist()),
            (("popularity",),) * len(shown),
            tuple(flight.notes),
            now,
            query.now_us,
        )
