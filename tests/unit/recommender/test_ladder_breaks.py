"""The rungs, each entered by breaking the part itself and left again by mending it; in one process.

Redis and model files are broken in tests/integration/serving/test_broken_parts.py.
"""

import asyncio
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.reference_world import NOW_US
from bentos.recommender.breaker import dependency
from bentos.recommender.compose import FunnelConfig
from bentos.recommender.filters.flagged import Flagged
from bentos.recommender.funnel import Funnel
from bentos.recommender.models import Models
from bentos.recommender.rules import default_rules
from contracts.budgets import Budgets
from contracts.errors import Unreachable
from features.online.base import PrecomputedList, UserState


class Store:
    """away: it raises. state: what it knows of everybody."""

    def __init__(self) -> None:
        self.away = False
        self.listed: PrecomputedList | None = None

    async def read_user(self, user_id: str) -> UserState:
        if self.away:
            raise Unreachable("away")
        return UserState(user_id, precomputed=self.listed)


class Ranker:
    """A RowScorer that does what it is told: scores, or raises as a lost GPU does, or gives NaN."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.mood = "well"
        self.asked = 0

    def score(self, rows: Any) -> Any:
        self.asked += 1
        if self.mood == "lost":
            raise RuntimeError("CUDA failure 719: unspecified launch failure ; GPU=0")
        if self.mood == "nan":
            return np.full(len(rows), np.nan, np.float32)
        return self._inner.score(rows)


@pytest.fixture
def world(models: Models, ask: Any) -> Any:
    """A funnel whose rankers can be broken, its store, and a way to ask it with a deadline."""

    class World:
        deep, light, store = Ranker(models.ranker), Ranker(models.light), Store()
        # No source is late, however busy the machine; a breaker asks again soon.
        config = FunnelConfig(budgets=Budgets(5, 2_000, 8_000, 6_000, 20, 5), breaker=dependency(open_s=0.05))
        funnel = Funnel(replace(models, ranker=deep, light=light), default_rules(), config=config)

        def slate(self, user: str = "u1", k: int = 5, **fields: Any) -> Any:
            query = ask(user, k=k, deadline=time.perf_counter() + 20, **fields)
            return asyncio.run(self.funnel.recommend(query, self.store))

        def rung(self, **fields: Any) -> tuple[str, str]:
            slate = self.slate(**fields)
            assert slate.item_ids
            return slate.degradation, slate.ranked_by

        def opens(self, name: str) -> bool:
            return bool(self.funnel.stages.breakers[name].state == "open")

        def until(self, wanted: tuple[str, str]) -> None:
            end = time.monotonic() + 10
            while self.rung() != wanted:
                assert time.monotonic() < end, f"{wanted} did not come back"

    return World()


@pytest.mark.parametrize("mood", ["lost", "nan"])
def test_a_gpu_lost_in_flight_is_the_light_ranker_and_not_an_error_and_it_comes_back(mood: str, world: Any) -> None:
    assert world.rung() == ("full", "dcn")
    world.deep.mood = mood
    asked = world.deep.asked
    for _ in range(5):
        assert world.rung() == ("simple_ranking", "logistic")
    assert world.opens("dcn")
    assert world.deep.asked == asked + 5
    for _ in range(5):  # left alone: it costs nothing
        slate = world.slate()
        assert "dcn: left alone after failures in a row" in slate.notes or world.deep.asked > asked + 5
    world.deep.mood = "well"
    world.until(("full", "dcn"))
    for _ in range(3):
        assert world.rung() == ("full", "dcn")
    assert world.funnel.stages.breakers["dcn"].state == "closed"


def test_without_both_rankers_the_retrieval_scores_order_and_both_come_back(world: Any) -> None:
    world.deep.mood = world.light.mood = "lost"
    for _ in range(6):
        assert world.rung() == ("simple_ranking", "retrieval")
    assert world.opens("logistic")
    world.deep.mood = "well"
    world.until(("full", "dcn"))
    world.deep.mood, world.light.mood = "lost", "well"
    world.until(("simple_ranking", "logistic"))


def test_evaluation_asks_a_failing_ranker_every_time(world: Any, ask: Any) -> None:
    world.deep.mood = "lost"
    for n in range(10):
        assert world.funnel.run(ask(), UserState("u1")).ranked_by == "logistic"
        assert world.deep.asked == n + 1


def test_the_store_away_and_back_is_stale_features_and_full(world: Any) -> None:
    world.store.away = True
    assert world.rung() == ("stale_features", "dcn")
    world.store.away = False
    assert world.rung() == ("full", "dcn")


def test_with_no_computed_slate_the_published_list_answers_and_tells_its_age(world: Any) -> None:
    world.store.listed = PrecomputedList(("i8", "i4"), (0.9, 0.8), "s1", "t", NOW_US - 7_200_000_000, "all")
    sources = world.funnel.stages.retrieval.sources
    kept = dict(sources)
    sources.clear()  # as with a retrieval bundle that is gone
    slate = world.slate("nobody", k=2)
    assert (slate.degradation, slate.batch_age_s) == ("batch", 7200.0)
    world.store.listed = None
    assert world.rung(user="nobody") == ("popularity", "popularity")
    sources.update(kept)
    assert world.slate("nobody").batch_age_s is None
    sources.clear()
    assert world.rung(user="nobody") == ("cached", "cached")
    sources.update(kept)
    assert world.rung(user="nobody") == ("full", "dcn")
    assert world.funnel.published_us == NOW_US - 7_200_000_000
    assert world.funnel.over(world.funnel.models).published_us == NOW_US - 7_200_000_000


class Broken:
    name = "flagged"

    def keep(self, *_: Any) -> Any:
        raise OSError("blocklist is gone")


@pytest.mark.parametrize(
    "rung", ["full", "stale_features", "simple_ranking", "retrieval", "batch", "cached", "popularity"]
)
def test_a_safety_filter_that_raises_lets_nothing_through_on_any_rung(rung: str, world: Any, models: Models) -> None:
    world.slate()  # so that there is a last slate
    everything = tuple(models.catalogue.item_ids)
    listed = PrecomputedList(everything, tuple(1 / (1 + n) for n in range(len(everything))), "s1", "t", NOW_US, "all")
    aim: Any = "full"
    match rung:
        case "stale_features":
            world.store.away = True
        case "simple_ranking":
            world.deep.mood = "lost"
        case "retrieval":
            aim = "retrieval"
        case "batch":
            aim, world.store.listed = "lists", listed
        case "cached":
            aim = "lists"
    user = "nobody" if rung == "popularity" else "u1"
    if rung == "popularity":
        aim = "lists"
    before = world.slate(user, aim=aim)
    assert rung in (before.degradation, before.ranked_by)
    world.funnel.stages.filters[0] = Broken()
    shown = world.slate(user, aim=aim)
    assert shown.item_ids == ()
    assert any("filter flagged failed closed" in note for note in shown.notes)
    world.funnel.stages.filters[0] = Flagged(models.catalogue)
    assert world.slate(user, aim=aim).item_ids == before.item_ids
