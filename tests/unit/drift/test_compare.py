"""Whole frames: what is found, and that nothing a frame may hold ends the run."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import NotFound, UsageError
from monitoring.drift.compare import compare
from monitoring.drift.engines.scipy import Scipy
from monitoring.drift.frame import Frame, read_frame
from monitoring.drift.question import Question
from monitoring.drift.report import Report

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1e6)


def frame(seed: int, rows: int, **other: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "item_id": [f"i{i}" for i in rng.integers(0, 200, rows)],
        "country": rng.choice(["DE", "FR", "US"], rows, p=[0.1, 0.3, 0.6]),
        "price": np.exp(rng.normal(2, 1, rows)),
        "children": rng.integers(0, 4, rows),
        "timestamp": pa.array([NOW - timedelta(hours=1)] * rows, pa.timestamp("us", "UTC")),
        **other,
    }


def said(reference: dict[str, Any], current: dict[str, Any], ask: Question | None = None) -> Report:
    sides = [Frame(pa.table(side)) for side in (reference, current)]
    report = compare(*sides, engine=Scipy(), now_us=NOW_US, ask=ask or Question())
    json.dumps(report.document(), allow_nan=False)
    return report


REFERENCE = frame(1, 5_000)


def test_a_window_of_the_same_world_has_not_drifted() -> None:
    report = said(REFERENCE, frame(2, 1_500))
    assert report.verdict == "none", report
    assert set(report.features) == {"country", "price", "children"}
    assert set(report.outputs) == {"popularity", "coverage"}


def test_each_column_says_what_moved() -> None:
    window = frame(2, 1_500)
    window["price"] = window["price"] * 1.5
    window["country"] = np.where(window["country"] == "FR", "US", window["country"])
    report = said(REFERENCE, window)
    assert report.verdict == "drift"
    assert {name: f.said.drift for name, f in report.features.items()} == {
        "country": "drift",
        "price": "drift",
        "children": "none",
    }
    moved = {m["category"]: m["current"] for m in report.features["country"].said.details["moved"][:2]}
    assert moved == {"FR": 0.0, "US": pytest.approx(0.9, abs=0.03)}


def test_on_a_hundred_thousand_rows_a_tiny_difference_is_significant_and_no_drift() -> None:
    rng = np.random.default_rng(3)
    report = said({"x": rng.normal(0, 1, 200_000)}, {"x": rng.normal(0.03, 1, 200_000)})
    found = report.features["x"].said
    assert found.p is not None
    assert found.p < 1e-6
    assert report.verdict == "none"


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "empty window": ({"x": np.arange(100.0)}, {"x": np.arange(0.0)}, "the current is empty"),
    "one row": ({"x": np.arange(100.0)}, {"x": [1.0]}, "1 row in the current"),
    "all NaN": ({"x": np.arange(100.0)}, {"x": [np.nan] * 100}, "every value of the current is missing"),
    "all null": ({"x": np.arange(100.0)}, {"x": pa.nulls(100)}, "every value of the current is missing"),
    "constant": ({"x": [1.5] * 100}, {"x": [1.5] * 100}, "constant"),
    "constant word": ({"x": ["a"] * 100}, {"x": ["a"] * 100}, "constant"),
    "dropped": ({"x": np.arange(100.0)}, {}, "dropped"),
    "new": ({}, {"x": np.arange(100.0)}, "a new column"),
    "mixed types": ({"x": np.arange(100.0)}, {"x": ["a"] * 100}, "double in the reference, string now"),
    "infinite": ({"x": np.arange(100.0)}, {"x": [*range(99), np.inf]}, "1 infinite values in the current"),
    "identifier": ({"x": [f"u{i}" for i in range(2_000)]}, {"x": ["u1"] * 100}, "an identifier"),
    "no type of ours": ({"x": [{"a": 1}] * 100}, {"x": [{"a": 1}] * 100}, "have no test"),
    "vectors of several lengths": ({"x": [[1.0, 2.0]] * 100}, {"x": [[1.0]] * 50 + [[1.0, 2.0]] * 50}, "have 1, 2"),
    "vectors of another length": ({"x": [[1.0, 2.0]] * 100}, {"x": [[1.0]] * 100}, "vectors of 2 numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_column_is_inconclusive_and_the_rest_is_judged(case: str) -> None:
    before, now, why = BAD[case]
    rows = len(next(iter(now.values()), [])) if "dropped" not in case else 100
    report = said({**frame(1, len(next(iter(before.values()), range(100)))), **before}, {**frame(5, rows), **now})
    found = report.features["x"].said
    assert (found.drift, found.p) == ("inconclusive", None)
    assert why in found.why
    assert report.features["price"].said.drift == ("none" if rows >= 30 else "inconclusive")
    constants = ("constant", "constant word", "new", "identifier", "no type of ours")
    assert report.verdict == ("none" if case in constants else "inconclusive")
    assert report.verdict == "none" or why in report.why


def test_ints_compare_with_floats_and_a_constant_with_what_varies() -> None:
    assert said({"x": np.arange(500)}, {"x": np.arange(500.0)}).verdict == "none"
    assert said({"x": np.ones(500)}, {"x": np.arange(500.0)}).verdict == "drift"


def test_rows_of_several_feature_hashes_in_one_file_are_inconclusive(tmp_path: Path) -> None:
    table = pa.table(frame(1, 500))
    mixed = table.append_column("feature_hash", pa.array(["aaaa", "bbbb"] * 250))
    pq.write_table(table.replace_schema_metadata({"feature_hash": "aaaa"}), tmp_path / "reference.parquet")
    pq.write_table(mixed, tmp_path / "current.parquet")
    sides = [read_frame(tmp_path / f"{side}.parquet") for side in ("reference", "current")]
    report = compare(*sides, engine=Scipy(), now_us=NOW_US)
    assert report.verdict == "inconclusive"
    assert "several definitions: aaaa, bbbb" in report.why


def test_another_feature_hash_is_no_reference() -> None:
    sides = [Frame(pa.table(frame(i, 500)), feature_hash=h) for i, h in ((1, "aaaa"), (2, "bbbb"))]
    report = compare(*sides, engine=Scipy(), now_us=NOW_US)
    assert report.verdict == "inconclusive"
    assert "definitions aaaa" in report.why
    assert {f.said.drift for f in report.features.values()} == {"inconclusive"}


def test_a_window_from_the_future_is_clock_skew_and_a_few_such_rows_are_left_out() -> None:
    window = frame(2, 1_000)
    late = [NOW + timedelta(hours=i < n) for n in (500, 5) for i in range(1_000)]
    half, few = (pa.array(late[at : at + 1_000], pa.timestamp("us", "UTC")) for at in (0, 1_000))
    skewed = said(REFERENCE, {**window, "timestamp": half})
    assert (skewed.verdict, "clock skew: 500 of 1000" in skewed.why) == ("inconclusive", True)
    assert "5 rows from the future were left out" in said(REFERENCE, {**window, "timestamp": few}).notes[0]


def test_a_truncated_file_is_a_reason_and_of_a_folder_the_rest_is_read(tmp_path: Path) -> None:
    whole, broken = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(pa.table({"x": np.arange(100.0)}), whole)
    broken.write_bytes(whole.read_bytes()[:-40])
    assert "b.parquet cannot be read" in read_frame(broken).why
    folder = read_frame(tmp_path)
    assert folder.table is not None
    assert folder.table.num_rows == 100
    assert "b.parquet" in folder.notes[0]
    report = compare(read_frame(whole), read_frame(broken), engine=Scipy(), now_us=NOW_US)
    assert (report.verdict, report.features["x"].said.drift) == ("inconclusive", "inconclusive")


def test_a_file_says_by_which_definitions_its_features_were_computed(tmp_path: Path) -> None:
    table = pa.table({"x": [1.0]})
    pq.write_table(table.replace_schema_metadata({"feature_hash": "abc"}), tmp_path / "own.parquet")
    assert read_frame(tmp_path / "own.parquet").feature_hash == "abc"
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "statistics.json").write_text('{"feature_hash": "def"}')
    pq.write_table(table, tmp_path / "reference" / "rows.parquet")
    assert read_frame(tmp_path / "reference" / "rows.parquet").feature_hash == "def"
    assert "several definitions" in read_frame(tmp_path).why


def test_a_frame_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_frame(tmp_path / "no.parquet")


def test_wrong_words_are_refused() -> None:
    with pytest.raises(UsageError, match="neither side has nonsense"):
        said(REFERENCE, REFERENCE, Question(features=["nonsense"]))
    with pytest.raises(UsageError, match="--number-test"):
        Question(numbers="welch")
    with pytest.raises(UsageError, match="--alpha"):
        Question(alpha=0)


def test_features_asked_for_are_all_that_is_looked_at() -> None:
    report = said(REFERENCE, frame(2, 500), Question(features=["price"]))
    assert (set(report.features), report.outputs) == ({"price"}, {})


def test_of_rows_that_go_together_one_of_each_is_judged() -> None:
    """Ten rows a user: 60 users' countries are no 600 answers."""
    rng = np.random.default_rng(8)

    def slates(users: int, first: int) -> dict[str, Any]:
        country = rng.choice(["DE", "FR", "US"], users, p=[0.2, 0.3, 0.5])
        return {"user_id": np.repeat(np.arange(first, first + users), 10), "country": np.repeat(country, 10)}

    alarms: dict[str | None, int] = dict.fromkeys((None, "user_id"), 0)
    for _ in range(20):
        before, now = slates(1_000, 0), slates(60, 1_000)
        for unit in alarms:
            alarms[unit] += said(before, now, Question(features=["country"], unit=unit)).verdict == "drift"
    assert alarms["user_id"] <= 3
    assert alarms[None] >= 8
    with pytest.raises(UsageError, match="no column session"):
        said(before, now, Question(unit="session"))


VALUES = {
    "number": st.one_of(st.none(), st.floats(width=32), st.integers(-5, 5).map(float)),
    "whole": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    "word": st.one_of(st.none(), st.text(max_size=3)),
    "flag": st.one_of(st.none(), st.booleans()),
    "vector": st.one_of(st.none(), st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=3)),
    "words": st.one_of(st.none(), st.lists(st.one_of(st.none(), st.sampled_from("ab")), max_size=2)),
    "time": st.one_of(st.none(), st.datetimes()),
    "nothing": st.none(),
}
TYPES = {
    "number": pa.float64(),
    "whole": pa.int64(),
    "word": pa.string(),
    "flag": pa.bool_(),
    "vector": pa.list_(pa.float32()),
    "words": pa.list_(pa.string()),
    "time": pa.timestamp("us"),
    "nothing": pa.null(),
}
NAMES = ("x", "y", "item_id", "timestamp", "label", "score", "position", "sources", "country", "logged")


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Any few columns of any type under any of the names that mean something; a few values over and over."""
    rows = draw(st.sampled_from([0, 1, 40, 120]))
    columns = {}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5)):
        kind = draw(st.sampled_from(sorted(VALUES)))
        values = draw(st.lists(VALUES[kind], min_size=1, max_size=8))
        columns[name] = pa.array([values[i % len(values)] for i in range(rows)], TYPES[kind])
    return pa.table(columns)


@settings(max_examples=150)
@given(tables(), tables())
def test_no_frame_ends_the_run_and_every_answer_is_json(reference: pa.Table, current: pa.Table) -> None:
    report = compare(Frame(reference), Frame(current), engine=Scipy(), now_us=NOW_US)
    document = json.loads(json.dumps(report.document(), allow_nan=False))
    for found in document["features"].values():
        assert {"test", "statistic", "p", "p_adjusted", "drift"} <= set(found)
        assert (found["drift"] is None) == (found["verdict"] == "inconclusive")
        assert found["verdict"] != "inconclusive" or found["why"]
    assert document["verdict"] != "inconclusive" or document["why"]
