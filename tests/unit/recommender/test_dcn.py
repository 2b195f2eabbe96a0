"""How rows of several users are dealt out to the folded graph."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bentos.recommender.rankers.dcn import CALL_ROWS, FoldedRanker, user_starts
from features.ranking import FIRST_CATEGORY, FIRST_USER, WIDTH


class Counted:
    """A session that scores a row by its first column and keeps how it was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def run(self, outputs: list[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
        rows, user = feeds["rows"], feeds["user"]
        self.calls.append((len(rows), len(user)))
        expected = rows if len(user) == len(rows) else np.repeat(user, len(rows), axis=0)
        assert np.array_equal(expected[:, FIRST_USER:FIRST_CATEGORY], rows[:, FIRST_USER:FIRST_CATEGORY])
        assert np.array_equal(expected[:, FIRST_CATEGORY + 2 :], rows[:, FIRST_CATEGORY + 2 :])
        return [rows[:, 0].copy()]


def rows_of(*users: int) -> NDArray[np.float32]:
    """One row for each number, of the user with that number."""
    rows = np.random.default_rng(0).standard_normal((len(users), WIDTH)).astype(np.float32)
    rows[:, FIRST_USER:FIRST_CATEGORY] = np.array(users, np.float32).reshape(-1, 1)
    rows[:, FIRST_CATEGORY + 2 :] = 1.0
    return rows


@pytest.mark.parametrize(
    ("users", "calls"),
    [
        ([1] * 30, [(30, 1)]),
        ([1] * CALL_ROWS, [(CALL_ROWS, 1)]),
        ([1] * 500, [(250, 1), (250, 1)]),
        ([1] * 40 + [2] * 30, [(40, 1), (30, 1)]),
        ([1, 2, 3, 1, 2], [(5, 5)]),
        ([], [(0, 0)]),
    ],
)
def test_a_users_part_is_computed_once_for_all_of_its_rows(users: list[int], calls: list[tuple[int, int]]) -> None:
    session, rows = Counted(), rows_of(*users)
    assert np.array_equal(FoldedRanker(session).score(rows), rows[:, 0])
    assert session.calls == calls


def test_another_country_or_device_is_another_user() -> None:
    rows = rows_of(1, 1, 1, 1)
    rows[1:, WIDTH - 1] = 5
    rows[3, WIDTH - 2] = 7
    assert user_starts(rows).tolist() == [0, 1, 3]
