"""Promotion: the score of a promoted item times the rules document's factor."""

from dataclasses import replace

import numpy as np

from bentos.recommender.rerank.base import Reranked
from bentos.recommender.types import Candidates, Query
from contracts.catalogue import Catalogue
from contracts.rules import RulesDocument


class Promote:
    """Scores are above zero, so a factor above one moves an item up."""

    name = "promote"

    def __init__(self, catalogue: Catalogue, rules: RulesDocument) -> None:
        self._promoted = catalogue.is_promoted
        self._factor = np.float32(rules.promoted_boost)

    def rerank(self, query: Query, candidates: Candidates) -> Reranked:
        promoted = self._promoted[candidates.items]
        n = int(np.count_nonzero(promoted))
        if not n:
            return Reranked(candidates)
        score = np.where(promoted, candidates.score * self._factor, candidates.score)
        order = np.argsort(-score, kind="stable")  # ties keep the ranker's order
        boosted = replace(candidates, score=score).take(order)
        return Reranked(boosted, (f"{n} promoted candidates: score × {float(self._factor):g}",))
