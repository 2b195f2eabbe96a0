"""Which items a request may be answered with, as a mask over the catalogue."""

import copy

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.types import Query, User
from contracts.catalogue import Catalogue
from contracts.rules import RulesDocument


class Eligibility:
    """Sources leave out what this blocks before their quota; the filters check the same again, each by itself."""

    def __init__(self, catalogue: Catalogue, rules: RulesDocument) -> None:
        self._flagged = catalogue.is_flagged
        self._suppress_seen = rules.suppress_seen
        self._newest_first = np.argsort(-catalogue.published_us, kind="stable").astype(np.int32)
        self._published = catalogue.published_us[self._newest_first][::-1]  # ascending

    def under(self, rules: RulesDocument) -> "Eligibility":
        """The same catalogue, not sorted again: that takes 25 ms for 200,000 items."""
        other = copy.copy(self)
        other._suppress_seen = rules.suppress_seen
        return other

    def blocked(self, query: Query, user: User) -> NDArray[np.bool_]:
        """bool [N]: flagged, not published by `query.now_us`, excluded by the request, seen by the user."""
        mask = self._flagged.copy()
        unpublished = len(mask) - int(np.searchsorted(self._published, query.now_us, side="right"))
        mask[self._newest_first[:unpublished]] = True
        mask[query.exclude] = True
        if self._suppress_seen:
            mask[user.seen] = True
        return mask
