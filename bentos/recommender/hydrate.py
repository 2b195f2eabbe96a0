"""From a request and what the store says to a user as the sources and the ranker see one."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import Models
from bentos.recommender.types import Query, User
from features.online.base import UserState
from features.resolve import LAST_10, resolve

HOUR_US = 3_600_000_000
NO_ITEMS = np.empty(0, np.int32)
NO_AGES = np.empty(0, np.float32)
NO_TIMES = np.empty(0, np.int64)
NOT_POSITIVE = "impression"


class Hydrate:
    def __init__(self, models: Models) -> None:
        self._index = models.index
        self._retrieval = models.retrieval

    def known(self, query: Query) -> User:
        """What the models alone know: enough for the sources that need no session."""
        row, seen, at_us = -1, NO_ITEMS, NO_TIMES
        if self._retrieval is not None:
            row = self._retrieval.users.lookup(query.user_id)
            if row >= 0:
                start, end = self._retrieval.seen_indptr[row : row + 2]
                seen = self._retrieval.seen_items[start:end]
                if self._retrieval.seen_at_us is not None:
                    at_us = self._retrieval.seen_at_us[start:end]
        met = seen[: len(at_us)]  # all of them, or none where a bundle does not say when
        return User(row, UserState(query.user_id), NO_ITEMS, NO_AGES, seen, met=met, met_at_us=at_us)

    def met(self, user: User, state: UserState) -> User:
        """`user` with seen ∪ the positives among the last events: all that an answer from a list needs of the store."""
        if not state.last:
            return user
        positive = [i.item_id for i in state.last if self._positive(i.event)]
        rows = self._index.lookup_many(positive)
        return User(user.row, state, NO_ITEMS, NO_AGES, _with(user.seen, rows[rows >= 0]))

    def resolve(self, query: Query, user: User, state: UserState) -> User:
        """`user` with features as of `query.now_us`, the session, and seen ∪ the positives among the last events.

        A stale session is no session for the models; it still says what the user has seen.
        """
        resolved = resolve(state, query.now_us)
        history, ages_h, seen = NO_ITEMS, NO_AGES, user.seen
        met, met_at_us = user.met, user.met_at_us
        if state.last:
            rows = self._index.lookup_many([i.item_id for i in state.last])
            known = rows >= 0
            if resolved.features.get(LAST_10):
                ages = np.array([query.now_us - i.timestamp_us for i in state.last], np.float64) / HOUR_US
                history, ages_h = rows[known], np.maximum(ages[known], 0.0).astype(np.float32)
            positive = known & np.array([self._positive(i.event) for i in state.last])
            seen = _with(seen, rows[positive])
            taken_up = np.array([i.timestamp_us for i in state.last], np.int64)[positive]
            met, met_at_us = _latest_of_both(met, met_at_us, rows[positive], taken_up)
        # Spelled out: `dataclasses.replace` takes three times as long.
        return User(
            row=user.row,
            state=state,
            history=history,
            history_age_h=ages_h,
            seen=seen,
            features=resolved.features,
            used=resolved.used,
            stale=resolved.stale,
            met=met,
            met_at_us=met_at_us,
        )

    def _positive(self, event: str) -> bool:
        events = None if self._retrieval is None else self._retrieval.positive_events
        return event != NOT_POSITIVE if events is None else event in events


def _with(seen: NDArray[np.int32], more: NDArray[np.int32]) -> NDArray[np.int32]:
    """Both, ascending, each once; for as few as these a third of what `np.union1d` costs."""
    if not len(more):
        return seen
    both = np.concatenate([seen, more])
    both.sort()
    new = np.ones(len(both), np.bool_)
    np.not_equal(both[1:], both[:-1], out=new[1:])
    return both[new]


def _latest_of_both(
    met: NDArray[np.int32], at_us: NDArray[np.int64], more: NDArray[np.int32], more_at_us: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Items ascending, each once, with its newest moment."""
    if not len(more):
        return met, at_us
    items, moments = np.concatenate([met, more]), np.concatenate([at_us, more_at_us])
    order = np.lexsort((moments, items))
    items, moments = items[order], moments[order]
    last = np.ones(len(items), np.bool_)
    np.not_equal(items[1:], items[:-1], out=last[:-1])
    return items[last], moments[last]
