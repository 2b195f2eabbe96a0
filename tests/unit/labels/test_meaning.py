"""A planted mismatch of the label is found: in a data set, in a metric, and in the rows themselves."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.dataset import INTERACTIONS, Positive
from contracts.errors import DataError
from features.labels import LabelRule
from monitoring.labels.meaning import compare, compare_rows
from registry.releases.policy import Metric

LEARNED = LabelRule((Positive(event="purchase"), Positive(event="click", attribution_h=2)))
T0 = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
CONFIG = """
name = "own"
impression_event = "impression"
[[positives]]
event = "click"
"""
ONLINE = pa.table({"request_id": ["r1", "r1", "r2"], "item_id": ["i1", "i2", "i1"], "label": [1.0, 0.0, None]})


def a_metric(name: str, **more: object) -> Metric:
    return Metric.model_validate({"name": name, "kind": "ctr", "direction": "higher", "role": "report", **more})


def an_export(folder, acts):
    """Two answers with impressions, and acts (request, item, event, hours)."""
    shown = [("r1", "i1"), ("r1", "i2"), ("r2", "i1")]
    rows = [(r, i, "impression", T0) for r, i in shown]
    rows += [(r, i, event, T0 + dt.timedelta(hours=hours)) for r, i, event, hours in acts]
    names = ("request_id", "item_id", "event", "timestamp")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table({"user_id": ["u1"] * len(rows), **columns}), folder / INTERACTIONS)
    (folder / "dataset.toml").write_text(CONFIG)
    return folder


def test_the_same_meaning_everywhere_is_ok():
    metrics = [a_metric("ctr", attribution_hours=2), a_metric("buys", kind="event_rate", event="purchase")]
    found = compare(LEARNED, {"next": LEARNED}, metrics)
    assert (found.verdict, found.mismatches) == ("ok", ())
    assert found.signal("streamrec:a", 5).verdict == "ok"


def test_a_data_set_that_learns_something_else_is_named():
    other = LabelRule((Positive(event="click", attribution_h=2),))
    found = compare(LEARNED, {"next": other})
    assert found.verdict == "breach"
    assert found.mismatches == ("model (first) and next (second): `purchase` is a positive in the first only",)


def test_a_metric_of_another_event_or_window_is_named():
    found = compare(LEARNED, metrics=[a_metric("ctr"), a_metric("likes", event="like")])
    assert found.mismatches == (
        "metric ctr counts `click` for 24 h after an answer, the label for 2 h",
        "metric likes counts `like`, which the model did not learn as a positive",
    )


def test_a_metric_that_counts_below_the_labels_threshold_is_named():
    learned = LabelRule((Positive(event="rating", min_value=4.0),))
    found = compare(learned, metrics=[a_metric("liked", kind="event_rate", event="rating")])
    assert found.verdict == "breach"
    assert found.mismatches == ("metric liked counts every `rating`, the label only those of at least 4",)


def test_nothing_to_compare_with_is_inconclusive():
    found = compare(LEARNED)
    assert found.verdict == "inconclusive"
    assert found.signal("streamrec:a", 5).cause


def test_rows_that_a_training_would_label_alike_are_no_mismatch(tmp_path):
    data = an_export(tmp_path, [("r1", "i1", "click", 1), ("r1", "i2", "click", 3), ("r2", "i1", "click", 1)])
    found = compare_rows(ONLINE, data, LEARNED)
    assert (found.n, found.different) == (2, 0)  # r2 is not known yet


def test_an_event_that_was_lost_on_the_way_is_found_and_shown(tmp_path):
    data = an_export(tmp_path, [("r1", "i2", "purchase", 1)])
    rows = compare_rows(ONLINE, data, LEARNED)
    assert (rows.n, rows.different, rows.why) == (2, 2, "1 are positive online only, 1 in the data set only")
    assert rows.examples[0] == {"request_id": "r1", "item_id": "i1", "online": 1.0, "offline": 0}
    found = compare(LEARNED, rows=rows)
    assert found.verdict == "breach"
    assert "2 of 2 shown items" in found.mismatches[0]


def test_rows_of_which_no_label_is_known_yet_are_no_agreement(tmp_path):
    young = ONLINE.set_column(2, "label", pa.array([None] * 3, pa.float64()))
    found = compare(LEARNED, {"next": LEARNED}, rows=compare_rows(young, an_export(tmp_path, []), LEARNED))
    assert (found.verdict, found.rows) == ("inconclusive", 0)


def test_a_data_set_without_requests_cannot_be_compared(tmp_path):
    data = an_export(tmp_path, [])
    path = data / INTERACTIONS
    pq.write_table(pq.read_table(path).drop_columns(["request_id"]), path)
    with pytest.raises(DataError, match="has no request_id"):
        compare_rows(ONLINE, data, LEARNED)
