import time

import numpy as np
import pytest
from growthbook import core
from hypothesis import given
from hypothesis import strategies as st

from bentos.gateway.hashing import bucket_ranges, choose_many, choose_variation, gbhash, gbhash_many, release_arms
from contracts.routing import ReleaseRoute, Target

USERS = [f"user-{i}" for i in range(100_000)]
TEXT = st.text(st.characters(), max_size=40)


@given(seed=TEXT, values=st.lists(TEXT, max_size=8))
def test_the_hash_of_many_is_the_sdks_bit_for_bit(seed: str, values: list[str]) -> None:
    assert gbhash_many(seed, values).tolist() == [core.gbhash(seed, value, 2) for value in values]


def test_the_hash_of_many_is_the_sdks_for_zeros_emptiness_and_other_planes() -> None:
    values = ["", "\0", "a\0", "\0a", "a", "é", "数", "😀", "x" * 1000, "\ud800"]
    assert gbhash_many("s\0", values).tolist() == [core.gbhash("s\0", value, 2) for value in values]


def test_the_hash_of_many_is_the_sdks_where_the_first_hash_is_0() -> None:
    """CC 24 31 C4 is the shortest text whose FNV-1a (32 bit) is 0: http://www.isthe.com/chongo/tech/comp/fnv/#zero-hash"""
    zero = bytes.fromhex("cc2431c4").decode("latin-1")
    assert core.fnv1a32(zero) == 0
    assert gbhash_many("", [zero]).tolist() == [core.gbhash("", zero, 2)]


def test_the_hash_of_many_equals_that_of_one_over_chunks() -> None:
    some = USERS[:20_000]
    assert gbhash_many("release-1", some).tolist() == [gbhash("release-1", u) for u in some]


def test_a_hundred_thousand_units_take_well_under_a_second() -> None:
    began = time.process_time()
    hashes = gbhash_many("release-1", USERS)
    assert time.process_time() - began < 1.0
    assert hashes.shape == (100_000,)


@given(
    n=st.lists(st.integers(0, 9999), min_size=1, max_size=20),
    coverage=st.floats(0, 1),
    split=st.floats(0.01, 0.99),
)
def test_the_choice_of_many_equals_the_choice_of_one(n: list[int], coverage: float, split: float) -> None:
    ranges = bucket_ranges((split, 1 - split), coverage)
    hashes = np.array(n) / 10_000
    assert choose_many(hashes, ranges).tolist() == [choose_variation(float(h), ranges) for h in hashes]


@pytest.mark.parametrize(("weight", "expected"), [(0, {"champion"}), (100, {"candidate"})])
def test_the_ends_of_a_ramp_have_one_arm(weight: float, expected: set[str]) -> None:
    route = ReleaseRoute(id="r", step="s", candidate=Target(bento="b"), weight=weight)
    assert set(release_arms(route, USERS[:1000]).tolist()) == expected
