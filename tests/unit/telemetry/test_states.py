"""Versions that are kept for replays: they come back as they were, and take no more room than they may."""

from pathlib import Path

import numpy as np
import pytest

from bentos.recommender.rules import default_rules
from bentos.telemetry.item_counts import read_counts, refresh
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
from features.item_counts import ItemCounts
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
            import os

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
