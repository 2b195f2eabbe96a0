"""Which items a request may be answered with, as a mask over the catalogue."""

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.types import Query, User
from contracts.catalogue import Catalogue
from contracts.rules import RulesDocument


@dataclass(frozen=True, slots=True)
class _Standing:
    """What holds for every request from one moment to another: not yet published; bool [N]."""

    from_us: int
    until_us: int
    blocked: NDArray[np.bool_]


class Eligibility:
    """Sources leave out what this blocks before their quota; the filters check the same again, each by itself.

    What is not yet published is kept until an item's time of publication passes. Flags are read each time: they change
    under a running service (bentos/recommender/live.py).
    """

    def __init__(self, catalogue: Catalogue, rules: RulesDocument) -> None:
        self._flags = catalogue.flags
        self._suppress_seen = rules.suppress_seen
        self._newest_first = np.argsort(-catalogue.published_us, kind="stable").astype(np.int32)
        self._published = catalogue.published_us[self._newest_first][::-1]  # ascending
        self._standing: _Standing | None = None

    def under(self, rules: RulesDocument) -> "Eligibility":
        """The same catalogue, not sorted again: that takes 25 ms for 200,000 items."""
        other = copy.copy(self)
        other._suppress_seen = rules.suppress_seen
        return other

    def blocked(self, query: Query, user: User) -> NDArray[np.bool_]:
        """bool [N]: flagged, not published by `query.now_us`, excluded by the request, seen by the user."""
        mask = self._at(query.now_us).blocked | self._flags.now
        mask[query.exclude] = True
        self.block_seen(mask, user)
        return mask

    def block_seen(self, mask: NDArray[np.bool_], user: User) -> None:
        """Block what the user has seen too, in place."""
        if self._suppress_seen:
            mask[user.seen] = True

    def _at(self, now_us: int) -> _Standing:
        standing = self._standing
        if standing is None or not standing.from_us <= now_us < standing.until_us:
            n = int(np.searchsorted(self._published, now_us, side="right"))  # published by now
            mask = np.zeros(len(self._newest_first), np.bool_)
            mask[self._newest_first[: len(mask) - n]] = True
            begins, ends = np.iinfo(np.int64).min, np.iinfo(np.int64).max
            standing = self._standing = _Standing(
                int(self._published[n - 1]) if n else begins, int(self._published[n]) if n < len(mask) else ends, mask
            )
        return standing
