"""Planted leaks across the cut: ids, copies, twins, people and pairs on both sides; features that look ahead."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from contracts.dataset import DatasetConfig
from training.data import synth
from training.evaluation.metrics import Targets
from training.evaluation.protocol import TestSet
from training.holdout import Window, time_of_share
from training.interactions import Log
from training.leakage import across
from training.leakage.across import Across, rows_across
from training.leakage.duplicates import no_duplicates
from training.leakage.ids import ids_tell_nothing
from training.leakage.overlap import no_overlap, sides

DAY = 86_400_000_000


def table(users: list[str], items: list[str], at_us: np.ndarray) -> pa.Table:
    n = len(users)
    return pa.table(
        {
            "user_id": users,
            "item_id": items,
            "event": ["click"] * n,
            "value": pa.nulls(n, pa.float64()),
            "at_us": pa.array(at_us.astype(np.int64)),
            "positive": [True] * n,
        }
    )


def drawn(seed: int = 0, before: int = 6_000, after: int = 800) -> Across:
    """Events without any order: 300 users, 200 items, names that say nothing."""
    random = np.random.default_rng(seed)
    names = random.permutation(1000)

    def rows(n: int, low: int, high: int) -> pa.Table:
        users = [f"u{names[u]}" for u in random.integers(0, 300, n)]
        items = [f"i{names[i]}" for i in random.integers(0, 200, n)]
        return table(users, items, np.sort(random.integers(low, high, n)))

    items = pa.table(
        {
            "item_id": [f"i{names[i]}" for i in range(200)],
            "title": [f"t{i}" for i in range(200)],
            "category": ["c"] * 200,
        }
    )
    return Across(rows(before, 0, 30 * DAY), rows(after, 30 * DAY, 33 * DAY), items)


def test_drawn_rows_pass() -> None:
    rows = drawn(after=150)
    assert ids_tell_nothing(rows).verdict == "pass"
    assert no_duplicates(rows).verdict == "pass"


def test_ids_that_were_given_in_the_order_of_the_outcome_are_found() -> None:
    rows = drawn(after=150)
    hit = set(rows.after["item_id"].to_pylist())
    order = sorted(set(rows.items["item_id"].to_pylist()), key=lambda name: (name not in hit, name))
    renamed = {name: f"sku-{at:04d}" for at, name in enumerate(order)}

    def again(part: pa.Table) -> pa.Table:
        names = [renamed[name] for name in part["item_id"].to_pylist()]
        return part.set_column(part.column_names.index("item_id"), "item_id", pa.array(names))

    leaky = Across(again(rows.before), again(rows.after), again(rows.items))
    check = ids_tell_nothing(leaky)
    assert check.verdict == "fail"
    assert check.figures["item_id_auc"] > 0.95
    assert check.figures["user_id_auc"] < 0.8


def test_ids_of_nobody_in_the_window_leave_it_open() -> None:
    rows = drawn(after=800)
    assert ids_tell_nothing(Across(rows.before, rows.after.slice(0, 3), rows.items)).verdict == "inconclusive"


def test_a_day_that_was_written_twice_is_found() -> None:
    rows = drawn()
    last = rows.before.slice(rows.before.num_rows - 60)
    shifted = last.set_column(
        last.column_names.index("at_us"), "at_us", pa.array(last["at_us"].to_numpy() + 2 * 3_600_000_000)
    )
    check = no_duplicates(Across(rows.before, pa.concat_tables([rows.after, shifted]), rows.items))
    assert check.verdict == "fail"
    assert "2.000 hours" in check.detail


def test_one_pair_under_two_ids_is_told_and_leaves_it_open() -> None:
    rows = drawn(after=100)
    items = rows.items.to_pylist()
    met = {(row["user_id"], row["item_id"]) for row in rows.before.to_pylist()}
    before = dict.fromkeys(user for user, _ in met)
    twins = [{**item, "item_id": item["item_id"] + "-b"} for item in items]
    user, item = sorted(met)[0]
    after = table([user] * 5 + list(before)[:20], [item + "-b"] * 5 + ["i-else"] * 20, np.full(25, 31 * DAY))
    check = no_duplicates(Across(rows.before, after, pa.Table.from_pylist([*items, *twins])))
    assert check.figures["twin_share"] == pytest.approx(1 / 21)
    assert check.verdict == "inconclusive"  # under the limit of 5 %, over the one of doubt


def test_a_catalogue_with_each_item_twice_fails() -> None:
    """Everybody comes back to what they had met, under its other id: half of the window's pairs are no new ones."""
    rows = drawn(after=100)
    twins = [{**item, "item_id": f"{item['item_id']}-b"} for item in rows.items.to_pylist()]
    met = sorted({(row["user_id"], row["item_id"]) for row in rows.before.to_pylist()})[::100]
    again = table([user for user, _ in met], [f"{item}-b" for _, item in met], np.full(len(met), 31 * DAY))
    honest = no_duplicates(Across(rows.before, rows.after, rows.items))
    doubled = pa.concat_tables([rows.items, pa.Table.from_pylist(twins)])
    check = no_duplicates(Across(rows.before, pa.concat_tables([rows.after, again]), doubled))
    assert (honest.verdict, check.verdict) == ("pass", "fail")
    assert check.figures["twin_share"] > 0.3
    assert check.figures["copied_share"] < 0.01  # no row is a copy: only the twins tell
    assert "had met under another id" in check.detail


def log(users: np.ndarray, items: np.ndarray, at_us: np.ndarray) -> Log:
    n = len(users)
    return Log(
        until_us=10,
        user=users.astype(np.int32),
        item=items.astype(np.int32),
        timestamp_us=at_us.astype(np.int64),
        weight=np.ones(n, np.float32),
        impression=np.zeros(n, bool),
        user_ids=["a", "b"],
        attribute_columns=(),
        attribute_values={},
        attributes=np.zeros((2, 0), np.int32),
    )


def window(users: list[int], items: list[int], at_us: list[int]) -> Window:
    rule = np.zeros(len(users), np.int64)
    return Window(10, 20, np.array(users, np.int32), np.array(items, np.int64), np.array(at_us, np.int64), rule)


def asked(users: list[int], items: list[int]) -> TestSet:
    rows, positions = np.unique(np.array(users), return_inverse=True)
    return TestSet(rows, Targets.of(positions, np.array(items, np.int64), len(rows)), 5)


def test_sides_that_share_nothing_pass() -> None:
    found = sides(log(np.array([0, 1]), np.array([0, 1]), np.array([1, 2])), window([0], [2], [12]), asked([0], [2]))
    assert (found.targets, found.met, found.late, found.early) == (1, 0, 0, 0)
    assert no_overlap({"a"}, {"b"}, found).verdict == "pass"


def test_a_target_that_training_had_fails() -> None:
    found = sides(log(np.array([0, 1]), np.array([0, 1]), np.array([1, 2])), window([0], [0], [12]), asked([0], [0]))
    assert no_overlap({"a"}, {"b"}, found).verdict == "fail"


def test_an_event_on_the_wrong_side_of_the_cut_fails() -> None:
    found = sides(log(np.array([0, 1]), np.array([0, 1]), np.array([1, 11])), window([0], [2], [9]), asked([0], [2]))
    assert (found.late, found.early) == (1, 1)
    assert no_overlap({"a"}, {"b"}, found).verdict == "fail"


def test_a_user_who_is_learned_from_and_held_out_fails_by_name() -> None:
    found = sides(log(np.array([0]), np.array([0]), np.array([1])), window([0], [2], [12]), asked([0], [2]))
    check = no_overlap({"a", "b"}, {"b"}, found)
    assert check.verdict == "fail"
    assert "b" in check.detail
    assert no_overlap({"a"}, {"b"}, None).verdict == "inconclusive"


def test_of_a_large_log_the_rows_nearest_to_the_cut_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "world"
    synth.write(folder, users=30, items=30, days=5, seed=1)
    config, cut_us = DatasetConfig.read(folder), time_of_share(folder, 0.2)
    whole = rows_across(folder, config, cut_us, synth.END_US)
    monkeypatch.setattr(across, "MOST_ROWS", 100)
    some = rows_across(folder, config, cut_us, synth.END_US)
    assert (some.before.num_rows, some.after.num_rows) == (100, 100)
    assert some.before["at_us"].equals(whole.before["at_us"].slice(whole.before.num_rows - 100))
    assert some.after["at_us"].equals(whole.after["at_us"].slice(0, 100))
