"""What the user has already met with a positive event is not shown again, unless the rules document allows it."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.filters.base import among
from bentos.recommender.types import Candidates, Query, User
from contracts.rules import RulesDocument


class Seen:
    name = "seen"

    def __init__(self, rules: RulesDocument) -> None:
        self._suppress = rules.suppress_seen

    def keep(self, query: Query, user: User, candidates: Candidates) -> NDArray[np.bool_]:
        if not self._suppress or not len(user.seen):
            return np.ones(len(candidates), np.bool_)
        return ~among(candidates.items, user.seen)
