import pyarrow as pa

from features.offline.join import as_of_join

HISTORY = pa.table({"entity": ["u", "u", "u", "v"], "timestamp_us": [10, 20, 30, 15], "value": [1.0, 2.0, 3.0, 9.0]})


def joined(moments: list[int], *, exact: bool) -> list[float | None]:
    rows = pa.table({"entity": ["u"] * len(moments), "timestamp_us": pa.array(moments, pa.int64())})
    return as_of_join(rows, HISTORY, exact=exact)["value"].to_pylist()


def test_a_row_gets_the_newest_value_before_it() -> None:
    assert joined([5, 11, 25, 99], exact=False) == [None, 1.0, 2.0, 3.0]


def test_a_value_of_the_same_moment_is_future_unless_asked_for() -> None:
    assert joined([10, 20], exact=False) == [None, 1.0]
    assert joined([10, 20], exact=True) == [1.0, 2.0]


def test_rows_keep_their_order_and_their_columns() -> None:
    rows = pa.table({"entity": ["v", "w", "u"], "timestamp_us": [99, 99, 12], "label": ["x", "y", "z"]})
    assert as_of_join(rows, HISTORY).to_pylist() == [
        {"entity": "v", "timestamp_us": 99, "label": "x", "value": 9.0, "value_timestamp_us": 15},
        {"entity": "w", "timestamp_us": 99, "label": "y", "value": None, "value_timestamp_us": None},
        {"entity": "u", "timestamp_us": 12, "label": "z", "value": 1.0, "value_timestamp_us": 10},
    ]
