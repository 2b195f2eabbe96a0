"""The rules on composition in the first places of the slate: category cap, fresh floor, floor for creators."""

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.rerank.base import Reranked
from bentos.recommender.rerank.selection import (
    CREATOR,
    FRESH,
    Targets,
    first_that_fit,
    planned,
)
from bentos.recommender.types import Candidates, Query
from contracts.catalogue import Catalogue
from contracts.rules import RulesDocument

HOUR_US = 3_600_000_000


class Window:
    """All rules hold together in the first min(window, k) places, or give way in the declared order and say so.

    A floor asks for as many as there are, at most. An item without a category ("" or none) is of no category. Within
    the window and after it the order is by score.
    """

    name = "window"

    def __init__(
        self, catalogue: Catalogue, rules: RulesDocument, creator_exposure: NDArray[np.float32] | None = None
    ) -> None:
        self._rules = rules
        self._item_ids = catalogue.item_ids
        self._published_us = catalogue.published_us
        self._category = catalogue.category
        nameless = [i for i, name in enumerate(catalogue.categories) if not name]
        if nameless:
            self._category = np.where(np.isin(catalogue.category, nameless), -1, catalogue.category).astype(np.int32)
        self._under_exposed = under_exposed(catalogue, creator_exposure, rules.under_exposed_quantile)

    def rerank(self, query: Query, candidates: Candidates) -> Reranked:
        rules, items = self._rules, candidates.items
        places = min(rules.window, query.k, len(items))
        if not places:
            return Reranked(candidates)
        published = self._published_us.take(items)
        fresh = (published > query.now_us - rules.fresh_hours * HOUR_US) & (published <= query.now_us)
        creator = self._under_exposed.take(items)
        kind = fresh * np.int64(FRESH) + creator * np.int64(CREATOR)
        category = _local(self._category.take(items))
        wanted = Targets(
            cap=places if rules.category_cap is None else min(rules.category_cap, places),
            fresh=min(rules.fresh_floor, places, int(np.count_nonzero(fresh))),
            creator=min(rules.creator_floor, places, int(np.count_nonzero(creator))),
        )
        chosen = first_that_fit(category, kind, places, wanted)
        notes: tuple[str, ...] = ()
        if chosen is None:
            chosen, targets = planned(category, kind, places, wanted, rules.relax)
            notes = tuple(_relaxed(wanted, targets))
        if chosen[-1] == places - 1:  # the best ones as they are
            return Reranked(candidates, notes=notes)
        rest = np.ones(len(items), np.bool_)
        rest[chosen] = False
        order = np.concatenate([np.asarray(chosen, np.int64), np.flatnonzero(rest)])
        decisions = tuple(
            f"{self._item_ids[int(items[at])]} from place {at + 1} to {place + 1}"
            for place, at in enumerate(chosen)
            if at >= places
        )
        return Reranked(candidates.take(order), decisions, notes)


def under_exposed(
    catalogue: Catalogue, creator_exposure: NDArray[np.float32] | None, quantile: float
) -> NDArray[np.bool_]:
    """bool [N]: items whose creator's exposure is below this quantile over all creators; none without a creator."""
    if creator_exposure is None or not len(creator_exposure):
        return np.zeros(len(catalogue), np.bool_)
    below = creator_exposure < np.quantile(creator_exposure, quantile)
    return (catalogue.creator >= 0) & below[catalogue.creator]


def _local(category: NDArray[np.int32]) -> NDArray[np.int64]:
    """Small numbers from 0 for the categories of these items; one of its own for each item that has none (-1)."""
    codes = category.astype(np.int64)
    n = int(codes.max()) + 1
    if n > 2 * len(codes):  # numbers with great gaps: close them
        codes = np.unique(category, return_inverse=True)[1].astype(np.int64)
        n = int(codes.max()) + 1
    nameless = np.flatnonzero(category < 0)
    codes[nameless] = n + np.arange(len(nameless))
    return codes


def _relaxed(wanted: Targets, targets: Targets) -> list[str]:
    pairs = (
        ("category_cap", wanted.cap, targets.cap),
        ("fresh_floor", wanted.fresh, targets.fresh),
        ("creator_floor", wanted.creator, targets.creator),
    )
    return [f"rule {name} relaxed: {asked} → {kept}" for name, asked, kept in pairs if asked != kept]
