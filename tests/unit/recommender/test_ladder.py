"""What an answer is called, and the lists below a computed one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.reference_world import NOW_US
from bentos.recommender.funnel import Funnel
from bentos.recommender.lists import Lists
from bentos.recommender.models import Models
from bentos.recommender.rules import default_rules
from bentos.recommender.slates import rung
from bentos.recommender.types import Candidates
from contracts.serving import DEGRADATIONS, SOURCES
from features.online.base import PrecomputedList, UserState


@pytest.mark.parametrize(
    ("ranked_by", "stale", "name"),
    [
        ("dcn", (), "full"),
        ("dcn", ("item_ctr_7d",), "stale_features"),
        ("logistic", (), "simple_ranking"),
        ("logistic", ("item_ctr_7d",), "simple_ranking"),
        ("retrieval", (), "simple_ranking"),
        ("batch", ("item_ctr_7d",), "batch"),
        ("cached", (), "cached"),
        ("popularity", (), "popularity"),
    ],
)
def test_an_answer_has_the_name_of_the_worst_that_befell_it(ranked_by: Any, stale: Any, name: str) -> None:
    assert rung(ranked_by, stale) == name
    assert name in DEGRADATIONS


def slate(*items: int) -> Candidates:
    rows = np.array(items, np.int32)
    scores = np.linspace(1, 0.5, len(rows), dtype=np.float32)
    by_source = np.zeros((len(rows), len(SOURCES)), np.float32)
    return Candidates(rows, scores, by_source, by_source > 0, scores)


def test_only_so_many_last_slates_are_kept_and_the_longest_unused_goes(models: Models) -> None:
    lists = Lists(models, capacity=2)
    lists.remember("a", slate(1))
    lists.remember("b", slate(2))
    lists.remember("a", slate(3))
    lists.remember("c", slate(4))
    assert lists.cached("b") is None
    kept = lists.cached("a")
    assert kept is not None
    assert kept.items.tolist() == [3]


def test_popularity_begins_with_the_country_of_the_request(models: Models, ask: Any) -> None:
    assert models.fallback is not None
    lists = Lists(models, 10)
    local = models.fallback.by_country["DE"]
    listed = lists.popularity(ask(context={"country": "DE"}), 400)
    assert listed.items[: len(local)].tolist() == local.tolist()
    assert sorted(listed.items.tolist()) == list(range(400))
    elsewhere = lists.popularity(ask(context={"country": "nowhere"}), 30)
    assert elsewhere.items.tolist() == models.fallback.popularity[:30].tolist()
    assert (np.diff(elsewhere.score) < 0).all()


@pytest.mark.parametrize(
    "broken",
    [
        PrecomputedList(("i1", "i2"), (0.5,), "s", "m", NOW_US, "all"),
        PrecomputedList((), (), "s", "m", NOW_US, "all"),
        PrecomputedList(("gone", "too"), (0.5, 0.4), "s", "m", NOW_US, "all"),
    ],
)
def test_a_broken_or_empty_published_list_gives_the_next_rung(
    broken: PrecomputedList, models: Models, ask: Any
) -> None:
    state = replace(UserState("nobody"), precomputed=broken)
    answer = Funnel(models, default_rules()).lowest(ask("nobody", k=10), state, "test")
    assert answer.degradation == "popularity"
    assert len(answer.item_ids) == 10


def test_the_rules_hold_on_popularity_too(models: Models, ask: Any) -> None:
    answer = Funnel(models, default_rules()).lowest(ask("nobody", k=10), None, "test")
    rows = models.index.lookup_many(answer.item_ids)
    assert np.bincount(models.catalogue.category[rows]).max() <= 3
    assert not any(note.startswith("rule category_cap") for note in answer.notes)


def test_a_last_slate_is_given_as_it_was_shown_and_put_in_order_again_only_under_other_rules(
    models: Models, ask: Any
) -> None:
    funnel = Funnel(models, default_rules())
    ids = funnel.popularity(ask("nobody")).item_ids[::-1]  # an order that the rules would not have made
    funnel._lists.remember("nobody", slate(*models.index.lookup_many(ids)), funnel.stages.rules_digest)
    given = funnel.lowest(ask("nobody"), None, "test")
    assert (given.degradation, given.item_ids) == ("cached", ids)
    other = funnel.under(default_rules().model_copy(update={"version": "other", "category_cap": 1}))
    chosen = other.lowest(ask("nobody"), None, "test")
    assert (chosen.degradation, set(chosen.item_ids)) == ("cached", set(ids))
    assert chosen.item_ids != ids
