"""Slates that are there already: a published list, the user's last slate, what is popular."""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import Models
from bentos.recommender.types import Candidates, Query
from contracts.serving import SOURCES
from features.online.base import PrecomputedList


class Lists:
    """The lower rungs for one process. Belongs to the event loop's thread."""

    def __init__(self, models: Models, capacity: int) -> None:
        self._index = models.index
        self._overall = np.empty(0, np.int32) if models.fallback is None else models.fallback.popularity
        self._by_country = {} if models.fallback is None else models.fallback.by_country
        self._last: OrderedDict[str, tuple[Candidates, str]] = OrderedDict()
        self._capacity = capacity
        self.published_us: int | None = None  # of the published lists, on the data set's clock; None: none seen yet

    def over(self, models: Models) -> "Lists":
        """Other models; what users have seen last is shared, as long as the items are numbered alike."""
        other = Lists(models, self._capacity)
        if models.retrieval is not None:  # else it may be a catalogue of the last resort's ids alone
            other._last = self._last
        other.published_us = self.published_us
        return other

    def __bool__(self) -> bool:
        """False: not even popularity is there."""
        return len(self._overall) > 0

    def remember(self, user_id: str, slate: Candidates, rules: str = "") -> None:
        """Keep a user's last slate; the longest unused goes. rules: digest of those that it keeps."""
        self._last[user_id] = slate, rules
        self._last.move_to_end(user_id)
        if len(self._last) > self._capacity:
            self._last.popitem(last=False)

    def noticed(self, precomputed: PrecomputedList | None) -> None:
        """A published list has come by: how old they are is known without an answer from one."""
        if precomputed is not None:
            self.published_us = precomputed.feature_time_us

    def batch(self, precomputed: PrecomputedList) -> Candidates:
        """A published list, without items that this catalogue does not know."""
        rows = self._index.lookup_many(precomputed.item_ids)
        known = rows >= 0
        return _listed(rows[known], np.asarray(precomputed.scores, np.float32)[known])

    def cached(self, user_id: str) -> Candidates | None:
        found = self._last.get(user_id)
        return found[0] if found else None

    def keeps(self, user_id: str, rules: str) -> bool:
        """Whether the user's last slate was made under these rules."""
        return user_id in self._last and self._last[user_id][1] == rules

    def country(self, query: Query) -> str:
        """Whose list the request gets; empty: that of all."""
        country = query.context.get("country", "")
        return country if country in self._by_country else ""

    def popularity(self, query: Query, n: int) -> Candidates:
        """The first `n` of the request's country, then of all."""
        local = self._by_country.get(query.context.get("country", ""))
        items = self._overall[:n]
        if local is not None and len(local):
            both = np.concatenate([local, items])
            items = both[np.sort(np.unique(both, return_index=True)[1])][:n]
        return _listed(items, (1.0 / (1.0 + np.arange(len(items)))).astype(np.float32))


def followed_by(candidates: Candidates, more: Candidates) -> Candidates:
    """`candidates`, then those of `more` that are not among them, with scores below."""
    new = ~np.isin(more.items, candidates.items)
    lowest = np.float32(candidates.score.min()) if len(candidates) else np.float32(1)
    tail = more.take(new)
    return Candidates(
        np.concatenate([candidates.items, tail.items]),
        np.concatenate([candidates.retrieval, tail.retrieval * lowest]),
        np.concatenate([candidates.by_source, tail.by_source]),
        np.concatenate([candidates.brought, tail.brought]),
        np.concatenate([candidates.score, tail.score * lowest]),
    )


def _listed(items: NDArray[np.int32], scores: NDArray[np.float32]) -> Candidates:
    none = np.zeros((len(items), len(SOURCES)))
    return Candidates(items, scores, none.astype(np.float32), none.astype(np.bool_), scores)
