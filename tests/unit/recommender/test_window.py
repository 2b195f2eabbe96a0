"""The rules document on slates: filters, promotion and window together, against brute force on small lists."""

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.recommender.compose import filters, rerankers
from bentos.recommender.filtering import keep_allowed
from bentos.recommender.hydrate import NO_AGES, NO_ITEMS
from bentos.recommender.models import Models
from bentos.recommender.rerank.window import Window, under_exposed
from bentos.recommender.types import Candidates, Query, User
from contracts.catalogue import Catalogue, Flags
from contracts.ids import IdIndex
from contracts.rules import RulesDocument
from contracts.serving import SOURCES
from features.online.base import UserState

NOW = 1_000 * 3_600_000_000
HOUR = 3_600_000_000
N = 10
UNKNOWN_CATEGORY = 3


def catalogue(draw: st.DrawFn) -> Catalogue:
    def column(values: st.SearchStrategy[Any], dtype: Any) -> Any:
        return np.array(draw(st.lists(values, min_size=N, max_size=N)), dtype)

    ids = [f"i{row}" for row in range(N)]
    return Catalogue(
        item_ids=ids,
        index=IdIndex.build(ids),
        category=column(st.integers(0, UNKNOWN_CATEGORY), np.int32),
        categories=["a", "b", "c", ""],
        creator=column(st.integers(-1, 3), np.int32),
        creators=["w", "x", "y", "z"],
        price=np.ones(N, np.float32),
        published_us=NOW - HOUR * column(st.sampled_from([-1, 1, 1, 23, 25, 900]), np.int64),
        is_promoted=column(st.booleans(), np.bool_),
        flags=Flags(column(st.sampled_from([False, False, False, True]), np.bool_)),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Catalogue, RulesDocument, Query, User, Candidates]:
    items = catalogue(draw)
    rules = RulesDocument(
        version="t",
        window=draw(st.integers(1, 6)),
        category_cap=draw(st.sampled_from([None, 1, 2, 3])),
        fresh_floor=draw(st.integers(0, 3)),
        creator_floor=draw(st.integers(0, 3)),
        promoted_boost=draw(st.sampled_from([0.5, 1.0, 1.2, 3.0])),
        suppress_seen=draw(st.booleans()),
        relax=tuple(draw(st.permutations(["creator_floor", "fresh_floor", "category_cap"]))),
    )
    rows = np.array(draw(st.permutations(range(N)))[: draw(st.integers(0, N))], np.int32)
    scores = np.array(sorted((draw(st.integers(1, 20)) for _ in rows), reverse=True), np.float32) / 20
    by_source = np.zeros((len(rows), len(SOURCES)), np.float32)
    candidates = Candidates(rows, scores, by_source, by_source > 0, scores)
    some = st.lists(st.integers(0, N - 1), max_size=4, unique=True)
    query = Query("r", "u", draw(st.integers(1, 8)), NOW, float("inf"), {}, np.array(draw(some), np.int32), True)
    user = User(-1, UserState("u"), NO_ITEMS, NO_AGES, np.array(draw(some), np.int32))
    return items, rules, query, user, candidates


EXPOSURE = np.array([0.1, 0.2, 0.3, 0.4], np.float32)  # the median is 0.25: creators w and x are under-exposed


@settings(max_examples=150, deadline=None)
@given(cases())
def test_rules_hold_on_the_final_slate_or_give_way_as_little_as_brute_force_says(
    case: tuple[Catalogue, RulesDocument, Query, User, Candidates],
) -> None:
    items, rules, query, user, candidates = case
    models = Models(items, None, None, None, None)
    allowed, _, _ = keep_allowed(filters(models, rules), query, user, candidates)
    promote, window = rerankers(models, rules)[0], Window(items, rules, EXPOSURE)
    promoted = promote.rerank(query, allowed)
    done = window.rerank(query, promoted.candidates)
    slate = done.candidates.take(np.arange(min(query.k, len(allowed))))
    shown = slate.items.tolist()

    assert len(shown) == len(set(shown)) == min(query.k, len(allowed))
    assert set(shown) <= set(candidates.items.tolist())
    assert not items.is_flagged[shown].any()
    assert (items.published_us[shown] <= NOW).all()
    assert not set(shown) & set(query.exclude.tolist())
    assert not (rules.suppress_seen and set(shown) & set(user.seen.tolist()))
    places = min(rules.window, query.k, len(allowed))
    assert (np.diff(slate.score[:places]) <= 0).all()
    assert (np.diff(slate.score[places:]) <= 0).all()
    before = dict(zip(candidates.items.tolist(), candidates.score.tolist(), strict=True))
    for row, score in zip(shown, slate.score.tolist(), strict=True):
        assert np.isclose(score, before[row] * (rules.promoted_boost if items.is_promoted[row] else 1))

    def kept(rows: list[int]) -> dict[str, int]:
        named = Counter(c for c in items.category[rows].tolist() if c != UNKNOWN_CATEGORY)
        age = NOW - items.published_us[rows]
        return {
            "category_cap": -max(0, max(named.values(), default=0) - (rules.category_cap or N)),
            "fresh_floor": min(rules.fresh_floor, int(((age >= 0) & (age < 24 * HOUR)).sum())),
            "creator_floor": min(rules.creator_floor, int(np.isin(items.creator[rows], [0, 1]).sum())),
        }

    if places:
        order = tuple(reversed(rules.relax))
        best = max(
            tuple(kept(list(rows))[rule] for rule in order) for rows in combinations(allowed.items.tolist(), places)
        )
        assert tuple(kept(shown[:places])[rule] for rule in order) == best
        there = kept(allowed.items.tolist())
        wanted = {
            "category_cap": 0,
            "fresh_floor": min(there["fresh_floor"], places),
            "creator_floor": min(there["creator_floor"], places),
        }
        relaxed = {rule for rule, value in zip(order, best, strict=True) if value < wanted[rule]}
        assert {note.split()[1] for note in done.notes} == relaxed


def test_a_creator_is_under_exposed_below_the_quantile_and_an_item_without_a_creator_never_is() -> None:
    ids = ["i0", "i1", "i2"]
    items = Catalogue(
        ids,
        IdIndex.build(ids),
        np.zeros(3, np.int32),
        ["a"],
        np.array([0, 3, -1], np.int32),
        ["w", "x", "y", "z"],
        np.ones(3, np.float32),
        np.zeros(3, np.int64),
        np.zeros(3, np.bool_),
        np.zeros(3, np.bool_),
    )
    assert under_exposed(items, EXPOSURE, 0.5).tolist() == [True, False, False]
    assert not under_exposed(items, np.full(4, 0.25, np.float32), 0.5).any()
    assert not under_exposed(items, None, 0.5).any()
