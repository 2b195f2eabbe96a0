"""Item features carried on by the stream, against the offline definitions over what came before and after together."""

import numpy as np

from contracts.dataset import DatasetConfig
from contracts.events import Event
from features.item_counts import HOUR_US
from features.live_items import live_item_features
from features.offline.items import item_features_as_of
from features.refreshed import refreshed
from tests.unit.features.conftest import DAY, HOUR, Write
from tests.unit.features.test_live_items import ITEMS, NOW, counted, events, rows_of

NAMES = {"item_trending_score", "item_ctr_7d", "item_completion_rate_7d"}


def split(sent: list[Event], at_us: int) -> tuple[list[Event], list[Event]]:
    return [e for e in sent if e.timestamp_us < at_us], [e for e in sent if e.timestamp_us >= at_us]


def data_set(write: Write, sent: list[Event]):
    rows = [(e.user_id, e.item_id, e.timestamp_us, e.event, e.value) for e in sent]
    return write(rows, dict.fromkeys(ITEMS, "all"))


def test_what_trends_is_what_the_offline_recount_over_snapshot_and_stream_says(write: Write) -> None:
    sent = events(seed=5)
    whole = data_set(write, sent)
    config = DatasetConfig.read(whole)
    cut = NOW - 30 * HOUR
    base = item_features_as_of(whole, cut, ITEMS)
    counts = counted(split(sent, cut)[1])
    made = refreshed(counts, rows_of(counts), config, base, dict.fromkeys(base, cut), len(ITEMS), NOW)
    expected = item_features_as_of(whole, NOW, ITEMS)["item_trending_score"]
    np.testing.assert_allclose(made.columns["item_trending_score"], expected, rtol=1e-5)


def test_a_stream_as_old_as_the_windows_says_all_by_itself(write: Write) -> None:
    sent = events(seed=6)
    whole = data_set(write, sent)
    config = DatasetConfig.read(whole)
    counts = counted(sent)
    base = {name: np.full(len(ITEMS), 0.7, np.float32) for name in NAMES}
    made = refreshed(counts, rows_of(counts), config, base, dict.fromkeys(base, NOW - DAY), len(ITEMS), NOW)
    expected = item_features_as_of(whole, NOW, ITEMS)
    for name in NAMES:
        np.testing.assert_allclose(made.columns[name], expected[name], rtol=1e-5, err_msg=name)


def test_in_the_first_days_a_rate_is_shrunk_to_what_the_snapshot_knew(write: Write) -> None:
    config = DatasetConfig.read(data_set(write, events(seed=1, count=50)))
    assert config.impression_event is not None
    shown = [Event(f"s{n}", "u", "i0", config.impression_event, NOW - HOUR, NOW) for n in range(60)]
    clicked = [Event(f"c{n}", "u", "i0", "click", NOW - HOUR, NOW) for n in range(30)]
    counts = counted(shown + clicked)
    base = {"item_ctr_7d": np.array([0.10, 0.30, np.nan, *[0.02] * 5], np.float32)}
    stamps = {"item_ctr_7d": NOW - DAY}
    ctr = refreshed(counts, rows_of(counts), config, base, stamps, len(ITEMS), NOW).columns["item_ctr_7d"]
    # (30 clicks + 20 × 0.10) / (60 impressions + 20); nothing of i1; i2 was never computed: the default
    np.testing.assert_allclose(ctr[:3], [0.40, 0.30, 0.02], rtol=1e-6)
    assert counts.since_us == (NOW - HOUR) // HOUR_US * HOUR_US


def test_a_snapshot_made_after_the_stream_began_is_not_added_to_it(write: Write) -> None:
    config = DatasetConfig.read(data_set(write, events(seed=1, count=50)))
    sent = [Event(f"c{n}", "u", "i0", "click", NOW - 24 * HOUR, NOW) for n in range(8)]
    counts = counted(sent)
    base = {"item_trending_score": np.array([4.0, 1.0, *[0.0] * 6], np.float32)}  # knows the same clicks, and i1's
    stamps = {"item_trending_score": NOW - 12 * HOUR}
    made = refreshed(counts, rows_of(counts), config, base, stamps, len(ITEMS), NOW).columns
    np.testing.assert_allclose(made["item_trending_score"][:2], [2.0, 0.5], rtol=1e-6)  # 8 × 2^(-24/12); 1 × 2^(-12/12)


def test_on_the_clock_of_a_log_that_ended_the_stream_goes_on_from_its_end(write: Write) -> None:
    config = DatasetConfig.read(data_set(write, events(seed=1, count=50)))
    counts = counted([Event("c", "u", "i1", "click", NOW - 12 * HOUR, NOW)])
    log_end = NOW - 400 * DAY
    base = {"item_trending_score": np.array([4.0, 1.0, *[0.0] * 6], np.float32)}
    stamps = {"item_trending_score": log_end}
    made = refreshed(counts, rows_of(counts), config, base, stamps, len(ITEMS), log_end)
    np.testing.assert_allclose(made.columns["item_trending_score"][:2], [4.0, 1.5], rtol=1e-6)
    assert made.wishes[:2].tolist() == [0.0, 1.0]


def test_without_a_snapshot_the_stream_is_all_that_is_known(write: Write) -> None:
    sent = events(seed=2)
    config = DatasetConfig.read(data_set(write, sent))
    counts = counted(sent)
    made = refreshed(counts, rows_of(counts), config, {}, {}, len(ITEMS), NOW).columns
    alone = live_item_features(counts, config, rows_of(counts), len(ITEMS))
    for name, column in alone.items():
        np.testing.assert_array_equal(made[name], column)
