"""What a start does before it says ready."""

import asyncio
import math

import numpy as np

from benchmarks.reference_world import COUNTRIES
from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.prewarm import hot_users, prewarm, queries
from bentos.recommender.rules import default_rules
from contracts.errors import Unreachable
from contracts.ids import IdIndex
from features.online.base import UserState


class Away:
    """A store that cannot be reached, or that hangs."""

    def __init__(self, hangs: bool = False) -> None:
        self.asked, self._hangs = [], hangs

    async def read_user(self, user_id: str) -> UserState:
        self.asked.append(user_id)
        if self._hangs:
            await asyncio.Event().wait()
        raise Unreachable("no store here")


def test_ids_of_rows_are_those_that_were_indexed_there():
    ids = ["pear", "apple", "fig", "kiwi"]
    assert IdIndex.build(ids).ids_of(np.array([2, 0, 3])) == ["fig", "pear", "kiwi"]


def test_hot_users_are_those_with_the_most_items_in_training(models):
    seen = np.diff(models.retrieval.seen_indptr)
    hot = hot_users(models, 5)
    rows = models.retrieval.users.lookup_many(hot)
    assert len(set(hot)) == 5
    assert sorted(seen[rows].tolist(), reverse=True) == sorted(seen.tolist(), reverse=True)[:5]


def test_every_country_and_the_hot_users_are_asked_for_and_nothing_is_remembered(models):
    funnel = Funnel(models, default_rules())
    asked = list(queries(models, each_s=math.inf))
    assert {query.context.get("country") for query in asked if not query.user_id} == {None, *COUNTRIES}
    assert {query.user_id for query in asked} >= set(hot_users(models, 10))
    assert all(query.shadow for query in asked)
    store = Away()
    assert asyncio.run(prewarm(funnel, store, asked, at_most_s=60)) == len(asked)
    assert len(store.asked) == len(asked)


def test_a_store_that_hangs_does_not_hold_up_the_start(models):
    funnel = Funnel(models, default_rules())
    loop_time = []

    async def start():
        loop = asyncio.get_running_loop()
        began = loop.time()
        await prewarm(funnel, Away(hangs=True), queries(models, each_s=math.inf), at_most_s=0.2)
        loop_time.append(loop.time() - began)

    asyncio.run(asyncio.wait_for(start(), 20))
    assert loop_time[0] >= 0.2


def test_without_models_there_is_nothing_to_do(tmp_path):
    models = load_models(dict.fromkeys(("retrieval", "ranking", "fallback")))
    assert hot_users(models) == []
    assert asyncio.run(prewarm(Funnel(models, default_rules()), Away(), queries(models))) == 0
