"""The popularity slate that is made ahead, against the one that is chosen for the request."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.recommender import popular
from bentos.recommender.funnel import Funnel
from bentos.recommender.inflight import InFlight
from bentos.recommender.models import Models
from bentos.recommender.rules import default_rules
from bentos.recommender.types import Query
from contracts.catalogue import Flags


@pytest.fixture
def funnel(models: Models) -> Funnel:
    return Funnel(models, default_rules())


def chosen(funnel: Funnel, query: Query) -> Any:
    """As on the other rungs, item by item."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(popular.Popular, "slate", lambda *_: None)
        return funnel.popularity(query)


def test_what_is_made_ahead_is_what_would_be_chosen_for_each_user(models: Models, ask: Any) -> None:
    funnel = Funnel(models, default_rules())
    ahead = 0
    popular_rows = np.array(chosen(funnel, ask("u0", k=60)).item_ids)

    @settings(max_examples=100)
    @given(
        user=st.integers(0, 29),
        k=st.sampled_from([1, 5, 20, 50]),
        country=st.sampled_from(["DE", "FR", "nowhere", ""]),
        exclude=st.lists(st.integers(0, 59), max_size=4),
    )
    def same(user: int, k: int, country: str, exclude: list[int]) -> None:
        nonlocal ahead
        rows = models.index.lookup_many(list(popular_rows[exclude])) if exclude else np.empty(0, np.int32)
        query = ask(f"u{user}", k=k, context={"country": country}, exclude=rows)
        ours, wanted = funnel.popularity(query), chosen(funnel, query)
        flight = InFlight(query)
        ahead += funnel._ladder._popular.slate(flight, funnel.stages.hydrate.known(query)) is not None
        assert (ours.item_ids, ours.scores, ours.sources) == (wanted.item_ids, wanted.scores, wanted.sources)
        assert (ours.degradation, ours.ranked_by, ours.notes) == ("popularity", "popularity", wanted.notes)

    same()
    assert ahead > 20  # else nothing was compared


def test_an_item_that_is_flagged_leaves_a_slate_that_was_made_before(models: Models, ask: Any, funnel: Funnel) -> None:
    first = funnel.popularity(ask("nobody")).item_ids
    row = int(models.index.lookup(first[0]))
    stage = next(f for f in funnel.stages.filters if f.name == "flagged")
    flagged = models.catalogue.is_flagged | (np.arange(len(models.catalogue)) == row)
    stage._flags = Flags(flagged)  # type: ignore[attr-defined]
    after = funnel.popularity(ask("nobody")).item_ids
    assert first[0] not in after
    assert len(after) == len(first)


def test_a_filter_that_fails_lets_nothing_through_here_either(ask: Any, funnel: Funnel) -> None:
    assert funnel.popularity(ask("nobody")).item_ids

    def broken(*_: Any) -> Any:
        raise RuntimeError("broken")

    funnel.stages.filters[0].keep = broken  # type: ignore[method-assign]
    slate = funnel.lowest(ask("nobody"), None, "test")
    assert slate.item_ids == ()
    assert any("failed closed" in note for note in slate.notes)


def test_a_slate_is_made_again_once_it_is_old(ask: Any, funnel: Funnel, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = popular.Popular._make
    monkeypatch.setattr(popular.Popular, "_make", lambda *a: made.append(1) or original(*a))  # type: ignore[func-returns-value]
    now = 0.0
    monkeypatch.setattr(popular.time, "perf_counter", lambda: now)
    for now in (0.0, 0.1, popular.FRESH_S + 0.1, popular.FRESH_S + 0.2):  # noqa: B007
        funnel.popularity(ask("nobody"))
    assert len(made) == 2
