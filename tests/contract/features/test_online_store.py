"""What every online store promises. A new adapter joins by one line in STORES."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import DataError, NotFound, Unreachable
from contracts.events import Event
from features.item_counts import HOUR_US, KEEP_DECAYED_US, ItemCounts, Key
from features.online.base import Interaction, ItemSnapshot, OnlineStore, PrecomputedList, Stamped, UserState
from features.online.memory import MemoryStore
from features.online.redis import RedisStore
from features.online.sqlite import ONLINE_DB, SqliteStore
from features.online.streaming import EVENTS_DB
from features.sessions import Session

EXAMPLES = count()  # users of its own for every example that Hypothesis draws
LAST = "user_last_10_interactions"


def sqlite_store(request: pytest.FixtureRequest) -> SqliteStore:
    return SqliteStore(request.getfixturevalue("tmp_path"))


def redis_store(request: pytest.FixtureRequest) -> RedisStore:
    # A patient timeout: this suite is about meaning; tests/integration has the impatient one.
    return RedisStore(request.getfixturevalue("redis_url"), timeout_s=5.0)


STORES: dict[str, Callable[[pytest.FixtureRequest], Any]] = {
    "memory": lambda request: MemoryStore(),
    "sqlite": sqlite_store,
    "redis": redis_store,
}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.redis if name == "redis" else ()) for name in STORES])
def store(request: pytest.FixtureRequest) -> Iterator[OnlineStore]:
    opened = STORES[request.param](request)
    yield opened
    opened.close()


@pytest.fixture
def read(store: OnlineStore) -> Iterator[Callable[[str], UserState]]:
    """Reads within one event loop, as the service does."""
    with asyncio.Runner() as loop:
        yield lambda user_id: loop.run(store.read_user(user_id))


Read = Callable[[str], UserState]


def click(item: str, at: int) -> Interaction:
    return Interaction(item, "click", at)


def made(*items: str, snapshot: str = "s1") -> PrecomputedList:
    return PrecomputedList(items, tuple(1.0 / (i + 1) for i in range(len(items))), snapshot, "streamrec:1", 77, "all")


def test_an_unknown_user_is_an_empty_state(store: OnlineStore, read: Read) -> None:
    assert read("nobody") == UserState("nobody")


def test_what_is_written_is_read_in_one_state(store: OnlineStore, read: Read) -> None:
    vector = np.linspace(-1, 1, 128, dtype=np.float32)
    store.write_users(
        {
            "u": {
                "user_embedding_128d": Stamped(vector, 10),
                "user_positives_30d": Stamped(3.5, 11),
                "user_category_preferences": Stamped({"tea": 0.75, "mugs": 0.25}, 12),
            }
        }
    )
    store.append_interactions([("u", click("a", 5)), ("other", click("b", 6))])
    store.publish_lists("s1", {"u": made("x", "y")})
    state = read("u")
    np.testing.assert_array_equal(state.batch["user_embedding_128d"].value, vector)
    assert state.batch["user_embedding_128d"].timestamp_us == 10
    assert state.batch["user_positives_30d"] == Stamped(3.5, 11)
    assert state.batch["user_category_preferences"] == Stamped({"tea": 0.75, "mugs": 0.25}, 12)
    assert state.last == (click("a", 5),)
    assert state.precomputed == made("x", "y")
    assert state.watermark_us == 6


def test_an_older_value_never_overwrites_a_newer_one_feature_by_feature(store: OnlineStore, read: Read) -> None:
    store.write_users({"u": {"user_positives_30d": Stamped(1.0, 100), "user_tenure_days": Stamped(1.0, 100)}})
    store.write_users({"u": {"user_positives_30d": Stamped(2.0, 99), "user_tenure_days": Stamped(2.0, 101)}})
    batch = read("u").batch
    assert batch["user_positives_30d"] == Stamped(1.0, 100)
    assert batch["user_tenure_days"] == Stamped(2.0, 101)


def test_the_same_stamp_again_replaces_the_value(store: OnlineStore, read: Read) -> None:
    store.write_users({"u": {"user_tenure_days": Stamped(1.0, 100)}})
    store.write_users({"u": {"user_tenure_days": Stamped(2.0, 100)}})
    assert read("u").batch["user_tenure_days"].value == 2.0


def test_last_keeps_the_newest_ten_newest_first_whatever_the_order_of_arrival(store: OnlineStore, read: Read) -> None:
    rows = [("u", click(f"i{at:02}", at)) for at in (5, 1, 12, 3, 11, 2, 9, 4, 10, 6, 8, 7)]
    store.append_interactions(rows[:7])
    store.append_interactions(rows[7:])
    assert read("u").last == tuple(click(f"i{at:02}", at) for at in range(12, 2, -1))


def test_the_same_interaction_counts_once(store: OnlineStore, read: Read) -> None:
    row = ("u", click("a", 5))
    store.append_interactions([row, row])
    store.append_interactions([row])
    assert read("u").last == (click("a", 5),)


def test_one_item_at_two_times_or_by_two_events_is_two_interactions(store: OnlineStore, read: Read) -> None:
    rows = (Interaction("a", "purchase", 6), Interaction("a", "click", 6), Interaction("a", "click", 5))
    store.append_interactions([("u", row) for row in rows])
    assert read("u").last == rows


def test_nothing_to_append_changes_nothing(store: OnlineStore, read: Read) -> None:
    store.append_interactions([])
    assert read("u") == UserState("u")


def test_materialised_and_streamed_interactions_are_one_history(store: OnlineStore, read: Read) -> None:
    store.append_interactions([("u", click("new", 30)), ("u", click("both", 20))])
    store.write_users({"u": {LAST: Stamped((click("both", 20), click("old", 10)), 25)}})
    state = read("u")
    assert state.last == (click("new", 30), click("both", 20), click("old", 10))
    assert LAST not in state.batch
    assert state.watermark_us == 30


def test_the_watermark_only_rises(store: OnlineStore, read: Read) -> None:
    assert read("u").watermark_us is None
    store.advance_watermark(50)
    store.append_interactions([("u", click("late", 40))])
    store.advance_watermark(45)
    assert read("u").watermark_us == 50
    store.write_users({"u": {LAST: Stamped((), 60)}})
    assert read("u").watermark_us == 60


def test_publishing_replaces_every_list_in_one_step(store: OnlineStore, read: Read) -> None:
    store.publish_lists("s1", {"u": made("x"), "gone": made("x")})
    store.publish_lists("s2", {"u": made("y", snapshot="s2")})
    assert read("u").precomputed == made("y", snapshot="s2")
    assert read("gone").precomputed is None
    store.publish_lists("s3", {})
    assert read("u").precomputed is None


def test_the_item_snapshot_comes_back_until_the_reader_has_it(store: OnlineStore) -> None:
    assert store.read_item_snapshot() is None
    columns = {
        "item_ctr_7d": np.array([0.5, np.nan], np.float32),
        "item_embedding_128d": np.arange(256, dtype=np.float32).reshape(2, 128),
    }
    store.write_item_snapshot(ItemSnapshot("v1", ["a", "b"], columns, {"item_ctr_7d": 9, "item_embedding_128d": 8}))
    found = store.read_item_snapshot()
    assert found is not None
    assert (found.version, list(found.item_ids)) == ("v1", ["a", "b"])
    assert found.timestamps_us == {"item_ctr_7d": 9, "item_embedding_128d": 8}
    for name, column in columns.items():
        np.testing.assert_array_equal(found.columns[name], column)
    assert store.read_item_snapshot(newer_than="v1") is None
    store.write_item_snapshot(replace(found, version="v2"))
    newer = store.read_item_snapshot(newer_than="v1")
    assert newer is not None
    assert newer.version == "v2"


def test_a_column_of_another_length_is_refused(store: OnlineStore) -> None:
    with pytest.raises(DataError, match="item_ctr_7d"):
        store.write_item_snapshot(ItemSnapshot("v", ["a"], {"item_ctr_7d": np.zeros(2, np.float32)}, {}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user_embedding_128d", np.zeros(64, np.float32)),
        ("user_embedding_128d", np.full(128, np.nan, np.float32)),
        ("user_positives_30d", float("nan")),
        ("user_positives_30d", "many"),
        ("user_category_preferences", [1, 2]),
    ],
)
def test_a_value_of_another_type_is_refused_and_nothing_is_written(
    store: OnlineStore, read: Read, name: str, value: Any
) -> None:
    with pytest.raises(DataError, match=name):
        store.write_users({"u": {name: Stamped(value, 1)}})
    assert read("u") == UserState("u")


def test_a_feature_that_the_registry_does_not_know_cannot_be_written(store: OnlineStore) -> None:
    with pytest.raises(NotFound, match="user_shoe_size"):
        store.write_users({"u": {"user_shoe_size": Stamped(44.0, 1)}})


@pytest.mark.parametrize("user_id", ["naïve ☕", "a b", "u'; DROP TABLE users; --", "{tag}", "*", "ü" * 256])
def test_any_user_id_reads_back_its_own(store: OnlineStore, read: Read, user_id: str) -> None:
    store.write_users({user_id: {"user_tenure_days": Stamped(4.0, 1)}, "u": {"user_tenure_days": Stamped(5.0, 1)}})
    store.append_interactions([(user_id, click("ï", 3))])
    store.publish_lists("s", {user_id: made("x")})
    state = read(user_id)
    assert state.batch["user_tenure_days"].value == 4.0
    assert state.last == (click("ï", 3),)
    assert state.precomputed == made("x")


def test_a_user_id_that_is_no_text_is_unknown(store: OnlineStore, read: Read) -> None:
    assert read("\ud800") == UserState("\ud800")


@given(
    rows=st.lists(
        st.tuples(st.sampled_from("uv"), st.sampled_from("abc"), st.sampled_from(("click", "like")), st.integers(0, 8)),
        max_size=40,
    ),
    cut=st.integers(0, 40),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_stream_in_any_parts_gives_the_newest_ten(
    store: OnlineStore, read: Read, rows: list[Any], cut: int
) -> None:
    prefix = f"{next(EXAMPLES)}-"
    interactions = [(prefix + user, Interaction(item, event, at)) for user, item, event, at in rows]
    store.append_interactions(interactions[:cut])
    store.append_interactions(interactions[cut:])
    for user in (prefix + "u", prefix + "v"):
        mine = {(i.timestamp_us, i.item_id, i.event) for u, i in interactions if u == user}
        expected = tuple(Interaction(item, event, at) for at, item, event in sorted(mine, reverse=True)[:10])
        assert read(user).last == expected


def away_memory(tmp_path: Path) -> OnlineStore:
    store = MemoryStore()
    store.away = True
    return store


def away_sqlite(tmp_path: Path) -> OnlineStore:
    for file in (ONLINE_DB, EVENTS_DB):
        (tmp_path / file).write_bytes(b"not a database at all, " * 200)
    return SqliteStore(tmp_path)


def away_redis(tmp_path: Path) -> OnlineStore:
    return RedisStore("redis://127.0.0.1:1/0")


@pytest.mark.parametrize("away", [away_memory, away_sqlite, away_redis])
def test_a_store_that_is_away_says_so_on_every_call(away: Callable[[Path], OnlineStore], tmp_path: Path) -> None:
    store = away(tmp_path)
    calls: list[Callable[[], Any]] = [
        lambda: asyncio.run(store.read_user("u")),
        lambda: store.write_users({"u": {"user_tenure_days": Stamped(1.0, 1)}}),
        lambda: store.append_interactions([("u", click("a", 1))]),
        lambda: store.advance_watermark(1),
        lambda: store.publish_lists("s", {"u": made("x")}),
        lambda: store.write_item_snapshot(ItemSnapshot("v", [], {}, {})),
        lambda: store.read_item_snapshot(),
    ]
    for call in calls:
        with pytest.raises(Unreachable):
            call()
    store.close()


# A whole hour, far enough ahead that no store forgets anything around it.
NOW = 3_000_000_000 // 3600 * 3600 * 1_000_000
MINUTE = 60_000_000


def sent(number: int, at: int, item: str = "a", event: str = "click", value: float | None = None) -> Event:
    return Event(f"e{number}", "u", item, event, at, at, value=value)


def by_key(counts: ItemCounts) -> dict[Key, tuple[int, int, float, float]]:
    """Key → n, valued, share, decayed."""
    columns = (counts.n, counts.valued, counts.share, counts.decayed)
    keys = (Key(*k) for k in zip(counts.item_ids, counts.events, counts.grade.tolist(), strict=True))
    return dict(zip(keys, zip(*(c.tolist() for c in columns), strict=True), strict=True))


def test_an_event_taken_in_changes_interactions_session_counts_and_watermark(store: OnlineStore, read: Read) -> None:
    at = NOW - 12 * HOUR_US
    events = [sent(1, at), sent(2, at + MINUTE, "a", "impression"), sent(3, at + 2 * MINUTE, "b", "completion", 0.75)]
    assert store.position("log") == ""
    assert store.take_in("log", events, after="", to="7")
    state = read("u")
    assert state.last == (Interaction("b", "completion", at + 2 * MINUTE), Interaction("a", "click", at))
    assert state.session == Session(at, at + 2 * MINUTE, 3)
    assert state.watermark_us == at + 2 * MINUTE
    assert by_key(store.read_item_counts(NOW)) == {
        Key("a", "click", -1): (1, 0, 0.0, pytest.approx(0.5)),
        Key("a", "impression", -1): (1, 0, 0.0, pytest.approx(0.5, rel=1e-2)),
        Key("b", "completion", 1): (1, 1, 0.75, pytest.approx(0.5, rel=1e-2)),
    }
    assert store.position("log") == "7"


def test_events_offered_again_change_nothing(store: OnlineStore, read: Read) -> None:
    events = [sent(1, NOW), sent(2, NOW + 1)]
    assert store.take_in("log", events, after="", to="2")
    before = read("u"), by_key(store.read_item_counts(NOW + HOUR_US))
    assert not store.take_in("log", events, after="", to="2")
    assert not store.take_in("log", events, after="1", to="3")
    assert (read("u"), by_key(store.read_item_counts(NOW + HOUR_US))) == before
    assert before[1][Key("a", "click", -1)][0] == 2


def test_each_log_has_a_position_of_its_own(store: OnlineStore) -> None:
    assert store.take_in("one", [sent(1, NOW)], after="", to="1")
    assert store.take_in("other", [sent(2, NOW)], after="", to="9")
    assert store.take_in("one", [], after="1", to="2")
    assert (store.position("one"), store.position("other"), store.position("third")) == ("2", "9", "")
    assert by_key(store.read_item_counts(NOW + 1))[Key("a", "click", -1)][0] == 2


def test_counts_of_a_week_leave_it_hour_by_hour_and_decayed_ones_are_forgotten(store: OnlineStore) -> None:
    week = 7 * 24 * HOUR_US
    old, new = NOW - week - 1, NOW - week
    assert store.take_in("log", [sent(1, old), sent(2, new), sent(3, NOW, "b")], after="", to="1")
    assert by_key(store.read_item_counts(NOW))[Key("a", "click", -1)][0] == 1
    assert by_key(store.read_item_counts(NOW))[Key("b", "click", -1)][0] == 0  # the moment itself does not count
    store.forget_counts(new + KEEP_DECAYED_US + 1)
    assert by_key(store.read_item_counts(NOW + 1)).keys() == {Key("b", "click", -1)} | (
        {Key("a", "click", -1)} if isinstance(store, RedisStore) else set()  # whose hours expire by Redis' own clock
    )


def test_events_that_come_in_any_order_and_in_any_parts_end_in_the_same_state(store: OnlineStore, read: Read) -> None:
    random = np.random.default_rng(7)
    at = NOW - random.integers(0, 3 * HOUR_US, 60)
    events = [
        Event(f"{store!r}{n}", user, f"i{n % 4}", "rating", t, NOW, value=n % 11 / 2)
        for user in ("u", "v")
        for n, t in enumerate(at.tolist())
    ]
    random.shuffle(events)
    for number, part in enumerate(np.array_split(np.arange(len(events)), 9)):
        chosen = [events[i] for i in part]
        assert store.take_in("log", chosen, after=str(number) if number else "", to=str(number + 1))
    mine, yours = read("u"), read("v")
    assert mine.last == yours.last
    assert mine.session == yours.session
    counts = by_key(store.read_item_counts(NOW + HOUR_US))
    assert sum(n for n, *_ in counts.values()) == len(events)
    whole = sum(2.0 ** (-(NOW + HOUR_US - t) / (12 * HOUR_US)) for t in at.tolist() for _ in "uv")
    assert sum(decayed for *_, decayed in counts.values()) == pytest.approx(whole, rel=1e-12)


def test_what_was_shown_counts_once_for_each_source_and_is_no_sign_of_what_trends(store: OnlineStore) -> None:
    hour = NOW // HOUR_US - 3
    assert store.add_shown("segment:0", {(hour, "a"): 5, (hour + 1, "a"): 2, (hour, "b"): 1})
    assert not store.add_shown("segment:0", {(hour, "a"): 5})
    assert store.add_shown("segment:1", {(hour, "a"): 1})
    assert store.take_in("log", [sent(1, NOW - 1, "a", "impression")], after="", to="1")
    counts = by_key(store.read_item_counts(NOW))
    assert {key: n for key, (n, *_) in counts.items()} == {Key("a", "impression", -1): 9, Key("b", "impression", -1): 1}
    assert counts[Key("b", "impression", -1)][3] == 0.0


@pytest.mark.parametrize("into_the_day", range(0, 24, 5))
def test_a_week_is_168_hours_at_any_hour_of_the_day(store: OnlineStore, into_the_day: int) -> None:
    now = NOW // (24 * HOUR_US) * 24 * HOUR_US + into_the_day * HOUR_US
    hours = range(now // HOUR_US - 200, now // HOUR_US + 3)
    assert store.add_shown("all", {(hour, "a"): 1 for hour in hours})
    counts = store.read_item_counts(now)
    assert counts.n.tolist() == [168]
    assert counts.since_us == now - 168 * HOUR_US
    assert store.read_item_counts(now + 90_000_000).n.tolist() == [169]  # a current hour as well


def test_one_user_can_be_forgotten(store: OnlineStore, read: Read) -> None:
    event = Event("e1", "u1", "i1", "click", 5, 5)
    other = Event("e2", "u2", "i1", "click", 5, 5)
    store.take_in("log", [event, other], after="", to="2")
    store.write_users({user: {"user_tenure_days": Stamped(5.0, 5)} for user in ("u1", "u2")})
    store.publish_lists("s", {user: PrecomputedList(("i1",), (0.5,), "s", "m", 5, "") for user in ("u1", "u2")})
    assert store.forget_user("u1") >= 3
    assert store.forget_user("u1") == 0
    gone, kept = read("u1"), read("u2")
    assert (dict(gone.batch), gone.last, gone.precomputed, gone.session) == ({}, (), None, None)
    assert all((kept.batch, kept.last, kept.precomputed, kept.session))
