"""The stream's counts against the offline definitions, on the same events."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.dataset import DatasetConfig
from contracts.errors import UsageError
from contracts.events import Event
from features.item_counts import NO_GRADE, ItemCounts, count_events, grade_of, parts
from features.live_items import live_item_features, weights
from features.offline.items import item_features_as_of
from features.online.memory import MemoryStore
from tests.unit.features.conftest import DAY, HOUR, MINUTE, Write

NOW = 20_000 * DAY
ITEMS = [f"i{n}" for n in range(8)]
NAMES = ("impression", "click", "purchase", "rating", "completion")


def events(seed: int, count: int = 3_000) -> list[Event]:
    """Ten days: more than the week, less than what is kept of a decayed sum."""
    random = np.random.default_rng(seed)
    out = []
    for n in range(count):
        name = NAMES[random.integers(len(NAMES))]
        value = {"rating": random.integers(0, 11) / 2, "completion": random.random() * 1.2, "purchase": 17.5}.get(name)
        at = NOW - int(random.integers(1, 10 * DAY))
        out.append(Event(f"e{n}", f"u{n % 5}", ITEMS[random.integers(8)], name, at, at + MINUTE, value=value))
    return out


def counted(sent: list[Event], now_us: int = NOW) -> ItemCounts:
    store = MemoryStore()
    for number in range(0, len(sent), 100):
        assert store.take_in("log", sent[number : number + 100], after=store.position("log"), to=str(number))
    return store.read_item_counts(now_us)


def rows_of(counts: ItemCounts) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array([ITEMS.index(i) if i in ITEMS else -1 for i in counts.item_ids], np.int32)


def test_at_a_whole_hour_the_stream_says_what_the_offline_definitions_say(write: Write) -> None:
    sent = events(seed=3)
    folder = write(
        [(e.user_id, e.item_id, e.timestamp_us, e.event, e.value) for e in sent], dict.fromkeys(ITEMS, "all")
    )
    config = DatasetConfig.read(folder)
    offline = item_features_as_of(folder, NOW, ITEMS)
    counts = counted(sent)
    live = live_item_features(counts, config, rows_of(counts), len(ITEMS))
    assert live.keys() == {"item_trending_score", "item_ctr_7d", "item_completion_rate_7d"}
    for name, column in live.items():
        assert column.dtype == np.float32
        np.testing.assert_allclose(column, offline[name], rtol=1e-6)
    assert len(set(live["item_ctr_7d"].tolist())) > 5


def test_between_hours_the_window_is_less_than_an_hour_longer() -> None:
    late = Event("a", "u", "i0", "click", NOW - 7 * DAY + MINUTE, NOW)
    gone = Event("b", "u", "i0", "click", NOW - 7 * DAY - 1, NOW)
    assert counted([late, gone], NOW + HOUR - 1).n.tolist() == [1]
    assert counted([late, gone], NOW + HOUR).n.tolist() == [0]


def test_items_outside_the_catalogue_count_for_nothing(write: Write) -> None:
    config = DatasetConfig.read(write([("u", "i0", 1, "click")]))
    counts = counted([Event("a", "u", "unknown", "click", NOW, NOW), Event("b", "u", "i1", "click", NOW, NOW)])
    live = live_item_features(counts, config, rows_of(counts), len(ITEMS))
    assert np.flatnonzero(live["item_trending_score"]).tolist() == [1]


def test_a_rule_between_two_grades_is_refused_by_name(write: Write) -> None:
    config = DatasetConfig.read(write([("u", "i0", 1, "click")]))
    counts = counted([Event("a", "u", "i0", "rating", NOW, NOW, value=4.0)])
    assert weights(counts, config).tolist() == [1.0]
    odd = config.model_copy(update={"positives": (config.positives[2].model_copy(update={"min_value": 3.7}),)})
    with pytest.raises(UsageError, match=r"min_value = 3\.7"):
        weights(counts, odd)


@pytest.mark.parametrize(
    ("value", "grade"), [(None, NO_GRADE), (-1.0, NO_GRADE), (0.0, 0), (0.49, 0), (4.0, 8), (4.99, 9), (1e300, 20)]
)
def test_a_grade_is_a_value_in_half_steps(value: float | None, grade: int) -> None:
    assert grade_of(value) == grade


def test_an_event_too_late_for_a_window_is_left_out_of_it_by_its_own_time_of_arrival() -> None:
    on_time = Event("a", "u", "i", "click", NOW, NOW + 8 * DAY)
    assert len(count_events([on_time]).hours) == 1
    late = Event("a", "u", "i", "click", NOW, NOW + 9 * DAY)
    assert count_events([late]).hours == {}
    assert len(count_events([late]).decays) == 1
    assert count_events([Event("a", "u", "i", "click", NOW, NOW + 15 * DAY)]).decays == {}


def test_exposures_are_the_impressions_of_a_rate_and_those_sent_of_an_answer_are_not_counted_again(
    write: Write,
) -> None:
    config = DatasetConfig.read(write([("u", "i0", 1, "click")])).model_copy(update={"impression_event": "view"})
    store = MemoryStore()
    store.add_shown("segment", {(NOW // HOUR - 1, "i0"): 60})
    sent = [Event(f"c{n}", "u", "i0", "click", NOW - 1, NOW) for n in range(8)]
    sent += [Event("again", "u", "i0", "impression", NOW - 1, NOW, request_id="r")]
    sent += [Event(f"v{n}", "u", "i0", name, NOW - 1, NOW) for n, name in enumerate(("view", "impression"))]
    assert store.take_in("log", sent, after="", to="1")
    counts = store.read_item_counts(NOW)
    live = live_item_features(counts, config, rows_of(counts), len(ITEMS))
    assert live["item_ctr_7d"][0] == pytest.approx((8 + 0.02 * 20) / (60 + 2 + 20))


@given(st.integers(0, 400), st.integers(0, 400))
def test_days_and_the_hours_around_them_are_the_hours_from_first_to_last(first: int, length: int) -> None:
    days, (before, after) = parts(first, first + length - 1)
    hours = [*before, *(d * 24 + h for d in days for h in range(24)), *after]
    assert hours == list(range(first, first + length))


def test_columns_are_aligned() -> None:
    counts = counted(events(seed=1, count=200))
    assert len(counts) == len(counts.events) == len(counts.grade) == len(counts.decayed) == len(counts.n)
