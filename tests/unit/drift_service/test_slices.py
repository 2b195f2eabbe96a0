"""Slice by slice: who clicks less than their scores say, with the user as the unit."""

import json

import numpy as np
import pyarrow as pa
import pytest

from monitoring.signals import worst
from monitoring.slices import slices


def world(seed: int, *, liked: float = 1.0, users: int = 3_000) -> pa.Table:
    """GB clicks twice as often as the others, and its scores say so; DE's clicks are `liked` of what is scored."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(users), 20)
    country = np.array(["DE", "FR", "GB"])[random.integers(0, 3, users)][owner]
    score = random.beta(2, 38, users * 20) * np.where(country == "GB", 2, 1)
    p = score * np.where(country == "DE", liked, 1.0) * random.lognormal(-0.125, 0.5, users)[owner]
    device = np.where(owner < 3, "tv", "web")
    return pa.table(
        {
            "user_id": [f"u{u}" for u in owner],
            "score": score,
            "position": np.tile(np.arange(1, 21), users),
            "label": (random.random(users * 20) < p).astype(float),
            "country": country,
            "device": device,
        }
    )


def test_the_slice_that_likes_what_it_gets_less_than_scored_is_the_worst():
    report = slices(world(0, liked=0.5), model="streamrec-ranking/7")
    assert report.verdict == "breach"
    assert report.worst is not None
    assert report.worst.name == "country=DE"
    assert report.worst.error == pytest.approx(-0.5, abs=0.15)
    assert {s.name for s in report.signals(5)} >= {"slice.error", "slice.country=DE.error"}


def test_a_country_that_clicks_more_as_its_scores_say_is_no_error():
    report = slices(world(0))
    assert report.verdict == "ok"
    rates = {s.name: s.ctr for s in report.slices}
    assert rates["country=GB"] > 1.5 * rates["country=DE"]  # type: ignore[operator]


def test_thirty_even_worlds_raise_no_more_than_alpha_allows():
    assert sum(slices(world(seed, users=1_000)).verdict == "breach" for seed in range(30)) <= 5


def test_few_users_are_inconclusive_and_the_interval_is_wide():
    (tv,) = [s for s in slices(world(0)).slices if s.name == "device=tv"]
    assert tv.verdict == "inconclusive"
    assert "3 users" in tv.why


def test_the_interval_covers_the_true_rate_in_about_95_of_100():
    covered = 0
    for seed in range(60):
        whole = slices(world(seed, users=400)).whole
        assert whole.ctr_interval is not None
        # The mean of the score: 2 / 40, a third of the users twice that; the tastes' mean is 1.
        covered += whole.ctr_interval[0] <= 0.05 * 4 / 3 <= whole.ctr_interval[1]
    assert covered >= 51  # fewer than 51 of 60 at 95 % has probability 0.001


def test_a_window_whose_labels_are_not_known_yet_is_inconclusive():
    table = world(0, users=50)
    table = table.set_column(table.column_names.index("label"), "label", pa.nulls(1_000, pa.float64()))
    report = slices(table)
    assert report.verdict == worst(report.signals(0)) == "inconclusive"
    assert report.why == "no label of the window is known yet"
    json.dumps(report.document(), allow_nan=False)
