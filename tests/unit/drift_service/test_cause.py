"""One row of each user, bins by the reference, and from them where and since when."""

import numpy as np
import pyarrow as pa
import pytest

from monitoring.drift.service.binned import Bins, psi
from monitoring.drift.service.cause import began, concentration, moved
from monitoring.drift.service.thinned import OnePerUser, one_per_user


def test_one_row_of_each_user_is_kept_and_each_row_is_as_likely():
    users = [f"u{i % 50}" for i in range(1_000)]
    table = pa.table({"user_id": users, "x": list(range(1_000))})
    places = [one_per_user(table, ("x",), seed=seed)["x"].to_numpy() // 50 for seed in range(40)]
    assert all(len(p) == 50 for p in places)
    # Each of a user's 20 rows is drawn with 1 / 20: the mean place is 9.5, its error sqrt(399 / 12 / 2000) = 0.13.
    assert np.mean(np.concatenate(places)) == pytest.approx(9.5, abs=0.6)


def test_batches_give_one_row_a_user_as_one_table_does():
    sample = OnePerUser(("x",), seed=3)
    for at in range(10):
        sample.add(pa.table({"user_id": [f"u{i}" for i in range(30)], "x": [at] * 30}))
    assert (sample.rows, sample.users) == (300, 30)
    assert len(set(sample.table()["x"].to_pylist())) > 3


def test_past_the_limit_users_are_drawn_and_the_same_ones_again():
    table = pa.table({"user_id": [f"u{i}" for i in range(500)], "x": list(range(500))})
    first, again = (one_per_user(table, ("x",), seed=1, limit=100)["x"].to_pylist() for _ in range(2))
    assert len(first) == 100
    assert first == again


def test_missing_unseen_and_rare_words_have_bins_of_their_own():
    bins = Bins.of(pa.array(["a"] * 5 + ["b"] * 3 + [None]))
    codes = bins.codes(pa.array(["a", "b", None, "z"]))
    assert [bins.name(code) for code in codes] == ["a", "b", "missing", "unseen"]


def test_a_count_that_is_mostly_zero_keeps_a_bin_for_its_zero():
    bins = Bins.of(pa.array([0.0] * 80 + list(range(1, 21))))
    zero, one, missing, above = bins.codes(pa.array([0.0, 1.0, None, 1e9]))
    assert len({zero, one, missing, above}) == 4


def test_psi_is_that_of_the_hand():
    # (0.6 − 0.5) ln(0.6 / 0.5) + (0.4 − 0.5) ln(0.4 / 0.5) = 0.1 ln 1.5
    assert psi(np.array([0.5, 0.5]), np.array([0.6, 0.4])) == pytest.approx(0.1 * np.log(1.5))


def test_a_shift_in_one_country_is_found_there():
    random = np.random.default_rng(0)
    countries = np.array(["DE", "FR", "GB", "IT"])
    before, now = random.integers(0, 4, 20_000), random.integers(0, 4, 3_000)
    reference, current = random.normal(size=20_000), random.normal(size=3_000) + (now == 0)
    bins = Bins.of(pa.array(reference))
    codes = bins.codes(pa.array(reference)), bins.codes(pa.array(current))
    found = concentration(bins, *codes, {"country": (before, now, tuple(countries))})
    assert found[0].slice == "country=DE"
    assert found[0].concentrated
    assert not any(w.concentrated for w in found[1:])
    assert sum(w.of_shift for w in found) == pytest.approx(1)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_moment_of_a_change_is_found(share: float):
    random = np.random.default_rng(1)
    change = int(4_000 * share)
    current = random.normal(size=4_000) + (np.arange(4_000) >= change)
    reference = pa.array(random.normal(size=20_000))
    bins = Bins.of(reference)
    when = np.arange(4_000) * 1_000_000
    at = began(bins, bins.codes(reference), bins.codes(pa.array(current)), when)
    assert at is not None
    assert abs(at / 1e6 - change) < 60


def test_a_window_that_is_shifted_as_a_whole_has_no_moment():
    random = np.random.default_rng(1)
    reference = pa.array(random.normal(size=20_000))
    bins = Bins.of(reference)
    now = bins.codes(pa.array(random.normal(1, size=4_000)))
    assert began(bins, bins.codes(reference), now, np.arange(4_000)) is None


def test_the_bins_that_moved_are_named():
    bins = Bins.of(pa.array(["a"] * 50 + ["b"] * 50))
    before, now = bins.codes(pa.array(["a"] * 50 + ["b"] * 50)), bins.codes(pa.array(["a"] * 20 + ["c"] * 30))
    assert moved(bins, before, now, 2) == [("unseen", 0.0, 0.6), ("b", 0.5, 0.0)]
