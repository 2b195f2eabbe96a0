"""Expected numbers by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from features.offline.log import open_log
from features.offline.states import user_states_as_of
from features.offline.users import batch_features, last_interactions
from features.online.base import Interaction

MINUTE = 60_000_000
DAY = 1440 * MINUTE
T = 100 * DAY
Write = Callable[..., Path]


def features(folder: Path, user: str = "u", t: int = T) -> dict[str, Any]:
    with open_log(folder) as log:
        return batch_features(log, [user], [t])[0]


def test_sessions_are_split_by_the_gap_and_only_the_last_30_days_count(write: Write) -> None:
    start = T - DAY
    rows = [
        ("u", "a", start, "impression"),
        ("u", "a", start + 30 * MINUTE, "click"),  # exactly the gap: the same session, 40 minutes long
        ("u", "b", start + 40 * MINUTE, "click"),
        ("u", "b", start + 71 * MINUTE, "click"),  # another one, of length 0
        ("u", "a", T - 31 * DAY, "click"),  # too long ago, and so is what would be a long session
        ("u", "a", T - 31 * DAY + 20 * MINUTE, "click"),
        ("v", "a", start + 500 * MINUTE, "click"),
    ]
    assert features(write(rows))["user_avg_session_length_min"] == pytest.approx((40 + 0) / 2)


def test_events_of_one_moment_do_not_make_a_session_longer(write: Write) -> None:
    rows = [("u", item, at, "click") for at in (T - 9 * DAY, T - 2 * DAY) for item in "abcdefgh"]
    assert features(write(rows))["user_avg_session_length_min"] == 0.0


def test_a_user_without_a_recent_session_has_the_default_written_out(write: Write) -> None:
    assert features(write([("u", "a", T - 40 * DAY, "click")]))["user_avg_session_length_min"] == 12.0


def test_preferences_halve_every_30_days_and_sum_to_one(write: Write) -> None:
    rows = [
        ("u", "tea1", T - 30 * DAY, "purchase"),  # weight 2, one half-life: 1
        ("u", "mug1", T - 60 * DAY, "rating", 5.0),  # weight 1, two half-lives: 1/4
        ("u", "mug1", T - 60 * DAY, "rating", 3.0),  # no positive
        ("u", "mug1", T - 1 * DAY, "impression"),
    ]
    shares = features(write(rows, {"tea1": "tea", "mug1": "mugs"}))["user_category_preferences"]
    assert shares == pytest.approx({"tea": 0.8, "mugs": 0.2})


def test_counts_weigh_positives_and_know_their_windows(write: Write) -> None:
    rows = [
        ("u", "a", T - 50 * DAY, "purchase"),
        ("u", "a", T - 30 * DAY, "click"),  # the window's first moment
        ("u", "b", T - 5 * DAY, "click"),
        ("u", "c", T - 5 * DAY + MINUTE, "click"),
        ("u", "c", T - 60 * DAY, "impression"),
    ]
    found = features(write(rows))
    assert found["user_positives_30d"] == 3.0
    assert found["user_positives_total"] == 5.0
    assert found["user_active_days_30d"] == 2.0
    assert found["user_tenure_days"] == 60.0


def test_an_event_at_the_very_moment_does_not_count_and_one_microsecond_before_does(write: Write) -> None:
    folder = write([("u", "a", T, "click")])
    assert features(folder, t=T) == {}
    assert features(folder, t=T + 1)["user_positives_total"] == 1.0
    assert user_states_as_of(folder, ["u"], T)["u"].last == ()
    assert user_states_as_of(folder, ["u"], T + 1)["u"].last == (Interaction("a", "click", T),)


def test_one_user_at_several_moments_has_a_row_for_each(write: Write) -> None:
    folder = write([("u", "a", T, "click"), ("u", "b", T + DAY, "click")])
    with open_log(folder) as log:
        rows = batch_features(log, ["u", "u", "v", "u"], [T + 2 * DAY, T + 1, T + 1, T])
    assert [row.get("user_positives_total") for row in rows] == [2.0, 1.0, None, None]


def test_last_is_ten_newest_first_with_ties_by_item_and_event_and_no_impressions(write: Write) -> None:
    rows = [("u", f"i{n:02}", T - n * MINUTE, "click") for n in range(1, 13)]
    rows += [
        ("u", "z", T - MINUTE, "impression"),
        ("u", "i01", T - MINUTE, "purchase"),
        ("u", "i00", T - MINUTE, "click"),
    ]
    folder = write([*rows, rows[0]])  # and one row twice
    with open_log(folder) as log:
        last = last_interactions(log, ["u"], [T])[0]
    assert [(i.item_id, i.event) for i in last[:4]] == [
        ("i01", "purchase"),
        ("i01", "click"),
        ("i00", "click"),
        ("i02", "click"),
    ]
    assert len(last) == 10


def test_everybody_with_a_past_has_a_state_and_an_asked_stranger_an_empty_one(write: Write) -> None:
    folder = write([("u", "a", T - 1, "click"), ("later", "a", T + 1, "click")])
    assert set(user_states_as_of(folder, None, T)) == {"u"}
    stranger = user_states_as_of(folder, ["stranger"], T)["stranger"]
    assert (stranger.batch, stranger.last) == ({}, ())


def test_ids_with_quotes_are_data_not_sql(write: Write) -> None:
    user = "o'brien\"; DROP VIEW log; --"
    folder = write([(user, "a'b", T - 1, "click")])
    assert user_states_as_of(folder, None, T)[user].last[0].item_id == "a'b"


def test_the_same_past_gives_the_same_bits_whatever_comes_later(write: Write) -> None:
    thirds = [("u", f"i{n % 7}", T - n * 37 * MINUTE, "rating", 5.0) for n in range(1, 3_000)]
    later = [(f"v{n}", "i1", T + n, "click", None) for n in range(3_000)]
    config = 'name = "x"\n[[positives]]\nevent = "rating"\nweight = 0.3333333\n'
    items = {f"i{n}": f"c{n % 3}" for n in range(7)}
    alone = write(thirds, items, config, name="alone")
    crowded = write([*thirds, *later], items, config, name="crowded")
    assert features(alone) == features(crowded)
