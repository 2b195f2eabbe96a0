"""Versions that are kept for replays: they come back as they were, and take no more room than they may."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bentos.recommender.rules import default_rules
from bentos.telemetry.item_counts import read_counts, refresh, write_counts
from bentos.telemetry.states import (
    FOLDER,
    keep_counts,
    keep_rules,
    keep_snapshot,
    kept_counts,
    kept_rules,
    kept_snapshot,
)
from contracts.errors import Unreachable
from features.item_counts import TRENDING_HALF_LIFE_US, ItemCounts
from features.online.base import ItemSnapshot
from features.online.memory import MemoryStore


def counts(now_us: int, n: int = 300, seed: int = 0) -> ItemCounts:
    rng = np.random.default_rng(seed)
    return ItemCounts(
        now_us,
        [f"ärtikel {row}" for row in range(n)],
        ["click"] * n,
        np.full(n, -1, np.int16),
        rng.random(n),
        rng.integers(0, 9, n),
        np.zeros(n, np.int64),
        rng.random(n),
        now_us - 5,
    )


def same(one: ItemCounts, other: ItemCounts | None) -> bool:
    names = ("grade", "decayed", "n", "valued", "share")
    return (
        other is not None
        and (one.now_us, one.since_us) == (other.now_us, other.since_us)
        and (list(one.item_ids), list(one.events)) == (list(other.item_ids), list(other.events))
        and all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in names)
    )


@pytest.mark.parametrize("n", [0, 1, 300])
def test_counts_come_back_bit_by_bit(tmp_path: Path, n: int) -> None:
    keep_counts(tmp_path, counts(10, n), 1 << 20)
    assert same(counts(10, n), kept_counts(tmp_path, 10))
    assert kept_counts(tmp_path, 11) is None


def test_the_oldest_counts_go_when_the_room_is_full_and_the_newest_stay_whatever_it_is(tmp_path: Path) -> None:
    keep_counts(tmp_path, counts(9), 1 << 20)
    size = next((tmp_path / FOLDER).iterdir()).stat().st_size
    for moment in (10, 11, 12):
        keep_counts(tmp_path, counts(moment, seed=moment), 2 * size + size // 2)
    assert [moment for moment in range(9, 13) if kept_counts(tmp_path, moment)] == [11, 12]
    keep_counts(tmp_path, counts(13), 1)
    assert [moment for moment in range(9, 14) if kept_counts(tmp_path, moment)] == [13]


def test_who_counts_keeps_what_it_lays_down_for_all_unless_there_is_no_room_for_it(tmp_path: Path) -> None:
    refresh(tmp_path, MemoryStore(), 7, states_mb=1)
    read = read_counts(tmp_path)
    assert read is not None
    assert same(read, kept_counts(tmp_path, 7))
    refresh(tmp_path, MemoryStore(), 8, states_mb=0)
    assert kept_counts(tmp_path, 8) is None


MINUTE_US = 60_000_000


def laid_down(home: Path, *all_counts: ItemCounts, room: int = 1 << 20) -> None:
    """As the process does that counts, again and again."""
    for one in all_counts:
        keep_counts(home, one, room)
        write_counts(home, one)


def moved_on(one: ItemCounts, us: int, rng: np.random.Generator) -> ItemCounts:
    """Most rows have met nothing; some are gone, some new, and one store hands them out in another order."""
    n = len(one)
    decayed = one.decayed * 2.0 ** (-us / TRENDING_HALF_LIFE_US)
    more = rng.random(n) < 0.05
    order = rng.permutation(n) if rng.random() < 0.3 else np.flatnonzero(rng.random(n) < 0.98)
    new = [f"new {rng.integers(10**9)}" for _ in range(rng.integers(0, 3))]
    longer = len(order) + len(new)
    columns = {name: np.resize(getattr(one, name)[order], longer) for name in ("grade", "valued")}
    return replace(
        one,
        now_us=one.now_us + us,
        item_ids=[*(one.item_ids[at] for at in order), *new],
        events=[*(one.events[at] for at in order), *("purchase" for _ in new)],
        decayed=np.resize((decayed + more)[order], longer),
        n=np.resize((one.n + more)[order], longer),
        share=np.resize(np.where(more, np.nan, one.share)[order], longer),
        **columns,
    )


@pytest.mark.parametrize("seed", range(4))
def test_counts_that_are_kept_as_differences_come_back_bit_by_bit(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    told = [counts(MINUTE_US)]
    for _ in range(12):
        told.append(moved_on(told[-1], MINUTE_US, rng))
    laid_down(tmp_path, *told)
    assert all(same(one, kept_counts(tmp_path, one.now_us)) for one in told)
    sizes = {path.stem.count("-"): path.stat().st_size for path in (tmp_path / FOLDER).iterdir()}
    assert sorted(sizes) == [1, 3]  # whole ones, and differences
    assert sizes[3] < sizes[1]


def test_a_chain_of_differences_goes_as_a_whole_and_one_without_its_beginning_is_gone(tmp_path: Path) -> None:
    rng, told = np.random.default_rng(1), [counts(MINUTE_US)]
    for _ in range(21):
        told.append(moved_on(told[-1], MINUTE_US, rng))
    laid_down(tmp_path, *told[:20])
    used = sum(path.stat().st_size for path in (tmp_path / FOLDER).iterdir())
    laid_down(tmp_path, *told[20:], room=int(0.8 * used))
    there = [bool(kept_counts(tmp_path, one.now_us)) for one in told]
    assert there == [False] * 10 + [True] * 12
    (tmp_path / FOLDER / f"counts-{told[10].now_us}.npz").unlink()
    assert kept_counts(tmp_path, told[12].now_us) is None


def test_item_features_come_back_without_their_vectors(tmp_path: Path) -> None:
    column = np.array([0.1, np.nan, 3], np.float32)
    vectors = np.ones((3, 128), np.float32)
    snapshot = ItemSnapshot("v/1", ["a", "b", "ç"], {"item_ctr_7d": column, "v": vectors}, {"item_ctr_7d": 5, "v": 6})
    keep_snapshot(tmp_path, snapshot)
    keep_snapshot(tmp_path, snapshot)
    back = kept_snapshot(tmp_path, "v/1")
    assert back is not None
    assert (back.version, back.item_ids, back.timestamps_us) == ("v/1", ["a", "b", "ç"], {"item_ctr_7d": 5, "v": 6})
    assert back.columns["item_ctr_7d"].tobytes() == column.tobytes()
    assert back.columns["v"].shape == (3, 1)  # in their place, so that their age is known
    assert kept_snapshot(tmp_path, "v/2") is None


def test_the_oldest_item_features_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentos.telemetry.states.SNAPSHOTS", 2)
    for version in ("1", "2", "3"):
        keep_snapshot(tmp_path, ItemSnapshot(version, ["a"], {"c": np.ones(1, np.float32)}, {"c": 1}))
        for path in (tmp_path / FOLDER).iterdir():  # a second apart
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
    assert [version for version in "123" if kept_snapshot(tmp_path, version)] == ["2", "3"]


def test_rules_come_back_with_their_digest(tmp_path: Path) -> None:
    rules = default_rules()
    keep_rules(tmp_path, rules)
    assert kept_rules(tmp_path, rules.digest) == rules
    assert kept_rules(tmp_path, "default@000000000000") is None


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    keep_counts(tmp_path, counts(10), 1 << 20)
    path = next((tmp_path / FOLDER).iterdir())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Unreachable, match=path.name):
        kept_counts(tmp_path, 10)
