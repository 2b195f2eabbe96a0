from dataclasses import replace

import numpy as np
import pytest

from features.online.base import Interaction, Stamped, UserState
from features.registry import REGISTRY
from features.resolve import default_of, resolve, resolve_items, stale_items

HOUR = 3_600_000_000
NOW = 1_000_000 * HOUR
CLICK = Interaction("a", "click", NOW - 72 * HOUR)


def state(**features: Stamped) -> UserState:
    return UserState("u", features)


def test_a_new_user_gets_defaults_and_is_not_stale() -> None:
    resolved = resolve(UserState("u"), NOW)
    assert resolved.stale == ()
    assert set(resolved.features) == {d.name for d in REGISTRY.of("user")}
    assert resolved.features["user_avg_session_length_min"] == 12.0
    assert resolved.features["user_last_10_interactions"] == ()
    assert not resolved.features["user_category_preferences"]
    np.testing.assert_array_equal(resolved.features["user_embedding_128d"], np.zeros(128))
    assert all(used.age_s is None and used.source == "default" for used in resolved.used)


@pytest.mark.parametrize(
    ("age_us", "value", "source", "stale"),
    [
        (48 * HOUR, 3.5, "store", ()),
        (48 * HOUR + 1, 12.0, "default", ("user_avg_session_length_min",)),
        (-HOUR, 3.5, "store", ()),
    ],
)
def test_a_value_is_served_up_to_its_ttl_and_not_a_microsecond_longer(
    age_us: int, value: float, source: str, stale: tuple[str, ...]
) -> None:
    resolved = resolve(state(user_avg_session_length_min=Stamped(3.5, NOW - age_us)), NOW)
    used = {u.name: u for u in resolved.used}["user_avg_session_length_min"]
    assert resolved.features["user_avg_session_length_min"] == value
    assert (used.value, used.source, used.age_s) == (value, source, max(0, age_us) / 1e6)
    assert resolved.stale == stale


def test_a_user_who_was_away_has_a_current_history_while_the_stream_is_whole() -> None:
    quiet = replace(state(), last=(CLICK,), watermark_us=NOW - HOUR)
    resolved = resolve(quiet, NOW)
    assert resolved.features["user_last_10_interactions"] == (CLICK,)
    assert resolved.stale == ()


@pytest.mark.parametrize("watermark", [None, NOW - 25 * HOUR])
def test_a_stream_that_stopped_makes_the_history_stale(watermark: int | None) -> None:
    resolved = resolve(replace(state(), last=(CLICK,), watermark_us=watermark), NOW)
    assert resolved.features["user_last_10_interactions"] == ()
    assert resolved.stale == ("user_last_10_interactions",)


def test_a_recent_event_proves_the_stream_alive() -> None:
    recent = Interaction("a", "click", NOW - HOUR)
    resolved = resolve(replace(state(), last=(recent, CLICK), watermark_us=NOW - 30 * HOUR), NOW)
    assert resolved.features["user_last_10_interactions"] == (recent, CLICK)


def test_a_dead_stream_does_not_make_a_user_stale_who_has_no_history() -> None:
    assert resolve(replace(state(), watermark_us=1), NOW).stale == ()


def test_what_is_logged_fits_a_context_record() -> None:
    vector = np.ones(128, np.float32)
    resolved = resolve(
        replace(
            state(
                user_embedding_128d=Stamped(vector, NOW),
                user_category_preferences=Stamped({"tea": 1.0}, NOW),
            ),
            last=(CLICK,),
            watermark_us=NOW,
        ),
        NOW,
    )
    logged = {u.name: u.value for u in resolved.used}
    assert str(logged["user_embedding_128d"]).startswith("crc32:")
    assert logged["user_category_preferences"] == {"tea": 1.0}
    assert logged["user_last_10_interactions"] == [f"a\tclick\t{CLICK.timestamp_us}"]


def test_defaults_cannot_be_changed_by_who_gets_them() -> None:
    vector = default_of(REGISTRY["user_embedding_128d"])
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1.0


def test_item_columns_past_their_ttl_are_defaults_all_over() -> None:
    columns = {
        "item_ctr_7d": np.array([0.5, np.nan], np.float32),
        "item_trending_score": np.array([7.0, 8.0], np.float32),
        "item_embedding_128d": np.ones((2, 128), np.float32),
    }
    stamps = {"item_ctr_7d": NOW - 7 * HOUR, "item_trending_score": NOW - 7 * HOUR, "item_embedding_128d": NOW}
    resolved = resolve_items(columns, stamps, 2, NOW)
    np.testing.assert_array_equal(resolved.columns["item_ctr_7d"], np.array([0.5, 0.02], np.float32))
    np.testing.assert_array_equal(resolved.columns["item_trending_score"], [0.0, 0.0])
    np.testing.assert_array_equal(resolved.columns["item_pop_7d"], [0.0, 0.0])
    assert resolved.columns["item_embedding_128d"].shape == (2, 128)
    assert resolved.stale == ("item_trending_score",)
    assert resolved.valid_until_us == NOW + 17 * HOUR
    later = resolve_items(columns, stamps, 2, resolved.valid_until_us + 1)
    assert set(later.stale) == {"item_trending_score", "item_ctr_7d"}


def test_an_expired_item_embedding_is_left_out() -> None:
    columns = {"item_embedding_128d": np.ones((1, 128), np.float32)}
    resolved = resolve_items(columns, {"item_embedding_128d": NOW - 169 * HOUR}, 1, NOW)
    assert "item_embedding_128d" not in resolved.columns
    assert resolved.stale == ("item_embedding_128d",)


def test_stale_items_are_those_of_the_whole_pass() -> None:
    ages_h = {"item_ctr_7d": 25, "item_pop_7d": 24, "item_trending_score": 7, "item_age_days": 9_999}
    stamps = {name: NOW - hours * HOUR for name, hours in ages_h.items()}
    resolved = resolve_items({name: np.ones(2, np.float32) for name in stamps}, stamps, 2, NOW)
    assert set(stale_items(stamps, NOW)) == set(resolved.stale) == {"item_ctr_7d", "item_trending_score"}
