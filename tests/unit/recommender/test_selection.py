"""The window against brute force over every window of small instances."""

from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.recommender.rerank.selection import (
    CREATOR,
    FRESH,
    Targets,
    choose,
    first_that_fit,
    reachable,
    type_counts,
)

RULES = ("creator_floor", "fresh_floor", "category_cap")


@st.composite
def instances(draw: st.DrawFn) -> tuple[list[int], list[int], int, Targets, tuple[str, ...]]:
    n = draw(st.integers(1, 9))
    category = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    kind = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    places = draw(st.integers(1, min(n, 6)))
    fresh = sum(bool(t & FRESH) for t in kind)
    creator = sum(bool(t & CREATOR) for t in kind)
    wanted = Targets(
        cap=draw(st.integers(1, places)),
        fresh=draw(st.integers(0, min(places, fresh))),
        creator=draw(st.integers(0, min(places, creator))),
    )
    return category, kind, places, wanted, draw(st.sampled_from(list(permutations(RULES))))


def broken(
    window: tuple[int, ...], category: list[int], kind: list[int], wanted: Targets, relax: tuple[str, ...]
) -> tuple[int, ...]:
    """How far each rule is broken, the one that gives way last first."""
    by_rule = {
        "category_cap": max(0, max(Counter(category[i] for i in window).values()) - wanted.cap),
        "fresh_floor": max(0, wanted.fresh - sum(bool(kind[i] & FRESH) for i in window)),
        "creator_floor": max(0, wanted.creator - sum(bool(kind[i] & CREATOR) for i in window)),
    }
    return tuple(by_rule[rule] for rule in reversed(relax))


@settings(max_examples=400, deadline=None)
@given(instances())
def test_the_window_breaks_no_more_than_brute_force_must_and_takes_the_best_items_so(
    instance: tuple[list[int], list[int], int, Targets, tuple[str, ...]],
) -> None:
    category, kind, places, wanted, relax = instance
    windows = {
        window: broken(window, category, kind, wanted, relax) for window in combinations(range(len(category)), places)
    }
    least = min(windows.values())
    best = min(window for window, how in windows.items() if how == least)  # items are in order of score

    c, t = np.array(category, np.int64), np.array(kind, np.int64)
    counts = type_counts(c, t)
    targets = reachable(counts, places, wanted, relax)  # type: ignore[arg-type]

    assert tuple(choose(c, t, counts, places, targets)) == best
    assert (targets == wanted) == (not any(least))
    given_way = {
        "category_cap": targets.cap - wanted.cap,
        "fresh_floor": wanted.fresh - targets.fresh,
        "creator_floor": wanted.creator - targets.creator,
    }
    assert tuple(given_way[rule] for rule in reversed(relax)) == least


@settings(max_examples=400, deadline=None)
@given(instances())
def test_the_first_that_fit_are_what_planning_would_choose(
    instance: tuple[list[int], list[int], int, Targets, tuple[str, ...]],
) -> None:
    category, kind, places, wanted, relax = instance
    c, t = np.array(category, np.int64), np.array(kind, np.int64)
    fitting = first_that_fit(c, t, places, wanted)
    counts = type_counts(c, t)
    targets = reachable(counts, places, wanted, relax)  # type: ignore[arg-type]
    if fitting is not None:
        assert targets == wanted
        assert fitting == choose(c, t, counts, places, targets)
    elif targets == wanted and wanted.fresh == wanted.creator == 0:  # the cap alone needs no planning
        assert choose(c, t, counts, places, targets)[-1] >= 4 * places


def test_one_category_alone_breaks_the_cap_and_leaves_the_floors() -> None:
    kind = np.array([0, 0, 0, 0, 0, FRESH, FRESH, CREATOR])
    category = np.zeros(8, np.int64)
    counts = type_counts(category, kind)
    targets = reachable(counts, 5, Targets(cap=3, fresh=2, creator=1), RULES)
    assert targets == Targets(cap=5, fresh=2, creator=1)
    assert choose(category, kind, counts, 5, targets) == [0, 1, 5, 6, 7]


@pytest.mark.parametrize(
    ("relax", "expected"),
    [
        (("creator_floor", "fresh_floor", "category_cap"), Targets(cap=1, fresh=1, creator=0)),
        (("fresh_floor", "creator_floor", "category_cap"), Targets(cap=1, fresh=0, creator=1)),
        (("category_cap", "fresh_floor", "creator_floor"), Targets(cap=2, fresh=1, creator=1)),
    ],
)
def test_which_rule_gives_way_is_the_declared_one(relax: tuple[str, ...], expected: Targets) -> None:
    # The only fresh item and the only one of an under-exposed creator share a category with a cap of one.
    category = np.array([0, 1, 1])
    kind = np.array([0, FRESH, CREATOR])
    assert reachable(type_counts(category, kind), 2, Targets(1, 1, 1), relax) == expected  # type: ignore[arg-type]


def test_a_window_of_500_is_chosen_exactly() -> None:
    rng = np.random.default_rng(3)
    category, kind = rng.integers(0, 40, 500), rng.integers(0, 4, 500)
    counts = type_counts(category, kind)
    targets = reachable(counts, 300, Targets(cap=9, fresh=140, creator=150), RULES)
    window = choose(category, kind, counts, 300, targets)
    assert len(window) == len(set(window)) == 300
    assert np.bincount(category[window]).max() <= targets.cap
    assert (kind[window] & FRESH > 0).sum() >= targets.fresh
