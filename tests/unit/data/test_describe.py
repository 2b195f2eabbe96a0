import pyarrow as pa
import pytest

from training.data.describe import describe
from training.data.snapshot import take

CONFIG = """
name = "x"
max_reject_share = 0.1
positives = [{event = "click"}, {event = "rating", min_value = 4}]
"""


@pytest.mark.parametrize("form", ["source", "snapshot"])
def test_counts_ranges_and_spread_are_right(make, tmp_path, interactions, now_us, form):
    """By hand: rows 0 to 99 clicks, 100 to 199 ratings of 0 to 4 by turns, so 20 of them with 4 stars; 10 users × 20
    items; the pairs (row mod 10, row mod 20) are 20 in all and clicks meet every one."""
    users = [None, *interactions["user_id"].to_pylist()[1:]]
    folder = make(
        log={
            "user_id": pa.array(users),
            "event": pa.array(["click"] * 100 + ["rating"] * 100),
            "value": pa.array([None] * 100 + [float(i % 5) for i in range(100)]),
        },
        config=CONFIG,
    )
    if form == "snapshot":
        folder = take(folder, tmp_path / "home", now_us=now_us).folder
    found = describe(folder, now_us=now_us)
    assert found["events"] == 199
    assert found["events_by_type"] == {"rating": 100, "click": 99}
    assert found["positive_events"] == 99 + 20
    assert (found["users"], found["items"], found["items_in_log"], found["categories"]) == (10, 20, 20, 3)
    assert found["density"] == 20 / (10 * 20)
    assert found["first"] == "2023-09-20T04:00:00+00:00"
    assert found["events_per_user"] == {"p0": 19, "p10": 19} | dict.fromkeys(
        ("p25", "p50", "p75", "p90", "p99", "p100"), 20
    )
    assert found["reject_share"]["interactions"] == (0.005 if form == "source" else 0.0)
