from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.online import codec
from features.online.base import Interaction, PrecomputedList
from features.registry import REGISTRY

NAMES = [d.name for d in REGISTRY if d.kind != "on_demand"]
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "weights": st.dictionaries(text, st.floats(0, 1), max_size=5),
    "interactions": st.lists(st.builds(Interaction, text, text, st.integers(0, 2**62)), max_size=10).map(tuple),
    "embedding": st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).standard_normal(128).astype(np.float32)
    ),
}


@given(st.data())
def test_every_value_comes_back_as_it_went(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    value = data.draw(VALUES[REGISTRY[name].dtype])
    np.testing.assert_array_equal(codec.decode_value(name, codec.encode_value(name, value)), value)


@given(st.sampled_from(NAMES), st.binary(max_size=600))
def test_bytes_that_are_no_value_are_counted_and_missing(name: str, raw: bytes) -> None:
    corrupt: Counter[str] = Counter()
    state = codec.user_state("u", {name: (1, raw)}, (), raw, None, corrupt)
    assert name in state.batch or state.last or corrupt[name] == 1 or name == "user_last_10_interactions"
    assert state.precomputed is not None or corrupt["precomputed list"] == 1


@given(st.binary(max_size=200))
def test_a_row_or_a_snapshot_of_noise_never_raises(raw: bytes) -> None:
    corrupt: Counter[str] = Counter()
    row = codec.decode_row(raw, corrupt)
    assert row == {} or not corrupt
    assert codec.decode_snapshot(raw, corrupt) is None


def test_one_bad_feature_does_not_take_the_others_away() -> None:
    corrupt: Counter[str] = Counter()
    good = codec.encode_value("user_tenure_days", 4.0)
    state = codec.user_state(
        "u", {"user_tenure_days": (1, good), "user_positives_30d": (1, b"\xc1")}, (), None, None, corrupt
    )
    assert set(state.batch) == {"user_tenure_days"}
    assert corrupt == {"user_positives_30d": 1}


def test_a_feature_of_another_version_of_the_registry_is_left_out_silently() -> None:
    corrupt: Counter[str] = Counter()
    assert codec.user_state("u", {"user_of_tomorrow": (1, b"\x01")}, (), None, None, corrupt).batch == {}
    assert not corrupt


def test_a_list_whose_scores_do_not_match_its_items_is_corrupt() -> None:
    corrupt: Counter[str] = Counter()
    raw = codec.encode_list(PrecomputedList(("a", "b"), (1.0,), "s", "m", 1, "all"))
    assert codec.decode_list(raw, corrupt) is None
    assert corrupt == {"precomputed list": 1}


@pytest.mark.parametrize(("stamp", "kept"), [(4, b"old"), (5, b"new"), (6, b"new")])
def test_merging_keeps_the_later_stamp_and_prefers_the_new_value(stamp: int, kept: bytes) -> None:
    assert codec.merge_row({"f": (5, b"old")}, {"f": (stamp, b"new")})["f"][1] == kept
