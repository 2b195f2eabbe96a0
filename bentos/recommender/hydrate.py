"""From a request and what the store says to a user as the sources and the ranker see one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import Models
from bentos.recommender.types import Query, User
from features.online.base import Interaction, UserState
from features.resolve import LAST_10, resolve

HOUR_US = 3_600_000_000
NO_ITEMS = np.empty(0, np.int32)
NO_AGES = np.empty(0, np.float32)
NOT_POSITIVE = "impression"


class Hydrate:
    def __init__(self, models: Models) -> None:
        self._index = models.index
        self._retrieval = models.retrieval

    def known(self, query: Query) -> User:
        """What the models alone know: enough for the sources that need no session."""
        row, seen = -1, NO_ITEMS
        if self._retrieval is not None:
            row = self._retrieval.users.lookup(query.user_id)
            if row >= 0:
                start, end = self._retrieval.seen_indptr[row : row + 2]
                seen = self._retrieval.seen_items[start:end]
        return User(row, UserState(query.user_id), NO_ITEMS, NO_AGES, seen)

    def resolve(self, query: Query, user: User, state: UserState) -> User:
        """`user` with features as of `query.now_us`, the session, and seen ∪ the positives among the last events.

        A stale session is no session for the models; it still says what the user has seen.
        """
        resolved = resolve(state, query.now_us)
        history, ages_h = self._session(resolved.features.get(LAST_10) or (), query.now_us)
        seen = user.seen
        positives = [i.item_id for i in state.last if self._positive(i.event)]
        if positives:
            rows = self._index.lookup_many(positives)
            seen = np.union1d(seen, rows[rows >= 0]).astype(np.int32)
        return replace(
            user,
            state=state,
            history=history,
            history_age_h=ages_h,
            seen=seen,
            features=resolved.features,
            used=resolved.used,
            stale=resolved.stale,
        )

    def _session(self, last: Sequence[Interaction], now_us: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        if not last:
            return NO_ITEMS, NO_AGES
        rows = self._index.lookup_many([i.item_id for i in last])
        ages = np.array([now_us - i.timestamp_us for i in last], np.float64) / HOUR_US
        known = rows >= 0
        return rows[known], np.maximum(ages[known], 0.0).astype(np.float32)

    def _positive(self, event: str) -> bool:
        events = None if self._retrieval is None else self._retrieval.positive_events
        return event != NOT_POSITIVE if events is None else event in events
