import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.dataset import DatasetConfig, Positive
from features.decayed import Decayed
from features.online.base import Interaction
from features.streaming import impression_events, merge_last, positive_weight, push, recency

interactions = st.builds(
    Interaction, st.sampled_from("abcd"), st.sampled_from(("click", "purchase")), st.integers(0, 12)
)


@given(st.lists(interactions, max_size=30))
def test_folding_any_order_of_events_gives_the_ten_newest(events: list[Interaction]) -> None:
    last: tuple[Interaction, ...] = ()
    for event in events:
        last = push(last, event)
    assert last == tuple(sorted(set(events), key=recency, reverse=True)[:10])


@given(st.lists(interactions, max_size=30), st.integers(0, 30))
def test_merging_two_parts_of_a_stream_is_folding_the_whole(events: list[Interaction], cut: int) -> None:
    assert merge_last(merge_last((), events[:cut]), merge_last((), events[cut:])) == merge_last((), events)


@given(st.lists(st.tuples(st.floats(0.1, 5), st.integers(0, 10_000)), max_size=30))
def test_a_decayed_sum_does_not_depend_on_the_order_of_events(events: list[tuple[float, int]]) -> None:
    half_life, now = 700.0, 10_000
    state = Decayed()
    for weight, at in events:
        state = state.add(weight, at, half_life)
    expected = sum(weight * 0.5 ** ((now - at) / half_life) for weight, at in events)
    assert state.at(now, half_life) == pytest.approx(expected)


def test_half_is_left_after_a_half_life() -> None:
    assert Decayed(8.0, 100).at(200, 50.0) == 2.0


def test_the_first_rule_that_fits_gives_the_weight_of_an_event() -> None:
    config = DatasetConfig(
        name="x",
        positives=(
            Positive(event="rating", min_value=4.5, weight=3.0),
            Positive(event="rating", min_value=4.0),
            Positive(event="click", weight=0.5),
        ),
    )
    weights = [positive_weight(config, "rating", value) for value in (5.0, 4.2, 3.9, None)]
    assert weights == [3.0, 1.0, 0.0, 0.0]
    assert positive_weight(config, "click", None) == 0.5
    assert positive_weight(config, "impression", None) == 0.0


def test_the_data_set_s_own_impressions_are_no_interactions_either() -> None:
    config = DatasetConfig(name="x", positives=(Positive(event="click"),), impression_event="shown")
    assert impression_events(config) == {"shown", "impression"}
    assert impression_events() == {"impression"}
