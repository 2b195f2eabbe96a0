"""Entry and Retrieval runner over one live catalogue, for the moments in which one knows more than the other."""

import asyncio
import math
from pathlib import Path

import pytest

from bentos.catalogue.store import CatalogueStore
from bentos.recommender.compose import FunnelConfig
from bentos.recommender.following import FollowingRetrieval
from bentos.recommender.funnel import Funnel
from bentos.recommender.live import LiveCatalogue
from bentos.recommender.models import Models
from bentos.recommender.rules import default_rules
from bentos.recommender.types import Query, Slate
from contracts.live_items import ItemChange, ItemFacts
from features.online.base import Interaction
from features.online.memory import MemoryStore


class Runner:
    """The runner without its process."""

    def __init__(self, body: FollowingRetrieval) -> None:
        self._body = body

    async def retrieve(self, sources, query, user, limits):
        return self._body.retrieve(sources, query, user, limits)


class Both:
    def __init__(self, home: Path, models: Models) -> None:
        self.live = LiveCatalogue(home, models)
        self.runner = FollowingRetrieval(home, models, default_rules(), FunnelConfig())
        self.store = MemoryStore()
        self.funnel = Funnel(self.live.begin(), default_rules(), remote_retrieval=Runner(self.runner))

    def entry_follows(self) -> None:
        self.live.look()
        self.funnel = self.funnel.over(self.live.rebuild())
        self.live.adopt()

    def ask(self, **fields) -> Slate:
        query = Query("r1", "u1", 400, self.live.models.now_us(), math.inf, **fields)
        slate = asyncio.run(self.funnel.recommend(query, self.store))
        assert slate.ranked_by == "dcn", slate.notes
        assert slate.notes == ()
        return slate


@pytest.fixture
def both(home: Path, models: Models) -> Both:
    store = CatalogueStore(home)
    made = Both(home, models)
    store.apply([ItemChange("new", "put", 1, ItemFacts("category 3"))])
    store.close()
    return made


def test_an_entry_that_is_behind_leaves_out_what_only_the_runner_knows(both: Both) -> None:
    both.runner.follow()
    assert "new" not in both.ask().item_ids
    both.entry_follows()
    assert "new" in both.ask().item_ids


def test_a_runner_that_is_behind_is_not_troubled_by_what_only_the_entry_knows(both: Both) -> None:
    both.entry_follows()
    both.store.append_interactions([("u1", Interaction("new", "click", 5))])
    slate = both.ask(exclude=both.live.models.index.lookup_many(["new", "i1"]))
    assert "new" not in slate.item_ids
    both.runner.follow()
    slate = both.ask(exclude=both.live.models.index.lookup_many(["i1"]))
    assert "new" not in slate.item_ids  # seen
    assert any("two_tower" in sources for sources in slate.sources)
