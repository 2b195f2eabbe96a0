"""Clicks by place, score and slice, with the user as the unit."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from monitoring.drift.correction import correct
from monitoring.drift.service.outcomes import Labelled, concept


def world(seed: int, users: int = 1_500, *, swapped: str = "", by_place: float = 0.0) -> pa.Table:
    """Each user sees 20 items once; clicks as the score says, more or less by a taste that is the user's own."""
    random = np.random.default_rng(seed)
    n = users * 20
    owner = np.repeat(np.arange(users), 20)
    country = np.array(["DE", "FR", "GB"])[random.integers(0, 3, users)][owner]
    score = random.beta(2, 18, n)
    taste = random.lognormal(-0.18, 0.6, users)[owner]
    position = np.tile(np.arange(1, 21), users)
    p = score * taste * np.where(position <= 2, 1 + by_place, 1)
    # The segment likes what it was not thought to like; its mean rate stays.
    p = np.where(country == swapped, (0.2 - score).clip(0.0) * taste, p)
    return pa.table(
        {
            "user_id": [f"u{seed}-{u}" for u in owner],
            "score": score,
            "position": position,
            "label": (random.random(n) < p.clip(0, 1)).astype(float),
            "country": country,
        }
    )


def judged(before: pa.Table, now: pa.Table) -> dict[str, Any]:
    return correct(concept(Labelled.of(before, ("country",)), Labelled.of(now, ("country",))))


def test_windows_that_are_alike_are_called_drifted_no_more_often_than_alpha_allows():
    alarms = sum(
        any(r.drift == "drift" for r in judged(world(2 * s), world(2 * s + 1, 600)).values()) for s in range(30)
    )
    assert alarms <= 5  # a binomial of 30 at 5 % has more than 5 with probability 0.0033


def test_preferences_of_one_segment_that_swap_are_found_in_clicks_by_score():
    found = judged(world(1), world(2, swapped="DE"))
    assert {n for n, r in found.items() if r.drift == "drift"} & {"ctr.score=1", "ctr.score=10"}


def test_more_clicks_on_the_first_places_are_found_there():
    found = judged(world(1), world(2, by_place=1.0))
    assert {n for n, r in found.items() if r.drift == "drift" and n.startswith("ctr.place")} == {
        "ctr.place=1",
        "ctr.place=2",
    }


def test_a_slice_whose_error_differs_from_the_rest_is_named():
    now = world(2)
    silent = np.where(np.asarray(now["country"]) == "GB", 0.3, 1.0) > np.random.default_rng(0).random(now.num_rows)
    now = now.set_column(now.column_names.index("label"), "label", pa.array(np.asarray(now["label"]) * silent))
    found = judged(world(1), now)
    assert found["error.country=GB"].drift == "drift"
    assert found["error.country=GB"].details["now"] < 0.5


@pytest.mark.parametrize("table", [world(2).slice(0, 0), world(2, users=5)])
def test_too_few_users_are_no_answer(table: pa.Table):
    found = judged(world(1), table)
    assert {r.drift for r in found.values()} == {"inconclusive"}
    assert "fewer than" in found["ctr"].why or "empty" in found["ctr"].why


def test_a_label_that_is_not_known_yet_is_no_negative():
    table = world(1, users=200)
    label = [None if i % 2 else v for i, v in enumerate(table["label"].to_pylist())]
    half = Labelled.of(table.set_column(table.column_names.index("label"), "label", pa.array(label, pa.float64())))
    assert half.rows == table.num_rows // 2
