"""What a request may be answered with: the same from one request to the next, at any moment."""

import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.recommender.catalogue import catalogue_of_ids
from bentos.recommender.eligibility import Eligibility
from bentos.recommender.rules import default_rules
from bentos.recommender.types import Query, User
from contracts.catalogue import Flags
from features.online.base import UserState

N = 12
CATALOGUE = replace(
    catalogue_of_ids([f"i{row}" for row in range(N)]),
    published_us=np.array([5, 1, 9, 9, 3, 0, 7, 2, 12, 4, 5, 20], np.int64),
    flags=Flags(np.arange(N) == 4),
)


def query(now_us: int, *exclude: int) -> Query:
    return Query("r", "u", 5, now_us, math.inf, exclude=np.array(exclude, np.int32))


def user(*seen: int) -> User:
    return User(-1, UserState("u"), np.empty(0, np.int32), np.empty(0, np.float32), np.array(seen, np.int32))


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(-3, 25), st.sets(st.integers(0, N - 1)), st.sets(st.integers(0, N - 1))), max_size=8)
)
def test_every_request_of_a_sequence_is_masked_as_if_it_were_the_first(
    requests: list[tuple[int, set[int], set[int]]],
) -> None:
    eligibility = Eligibility(CATALOGUE, default_rules())
    for now_us, exclude, seen in requests:
        mask = eligibility.blocked(query(now_us, *exclude), user(*seen))
        expected = CATALOGUE.is_flagged | (CATALOGUE.published_us > now_us)
        expected[[*exclude, *seen]] = True
        assert mask.tolist() == expected.tolist()


def test_a_flag_set_under_way_holds_from_the_change_on() -> None:
    catalogue = replace(CATALOGUE, flags=Flags(CATALOGUE.is_flagged))
    eligibility = Eligibility(catalogue, default_rules())
    assert not eligibility.blocked(query(100), user())[7]
    catalogue.flags.now = CATALOGUE.is_flagged | (np.arange(N) == 7)
    assert eligibility.blocked(query(100), user())[7]


def test_rules_that_allow_what_was_seen_do_so_for_their_own_requests_alone() -> None:
    eligibility = Eligibility(CATALOGUE, default_rules())
    lenient = eligibility.under(default_rules().model_copy(update={"suppress_seen": False}))
    assert eligibility.blocked(query(100), user(3))[3]
    assert not lenient.blocked(query(100), user(3))[3]
