"""July against November on the real log, with last July as the season."""

import os
from pathlib import Path

import pytest

from benchmarks.seasonality import judged, purchases


def test_what_july_buys_otherwise_than_november_is_seasonal_where_last_july_did_too():
    shared = Path(os.environ.get("STREAMREC_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    source = shared / "online-retail-2" / "transactions.parquet"
    if not source.exists():
        pytest.skip(f"REAL DATA NOT FOUND at {source}: set STREAMREC_SHARED_DATA")
    _, july, _, november = judged(purchases(source))
    assert (july["reference"], july["window"], july["season"]) == ("2010-11", "2011-07", "2010-07")
    assert {name: said["verdict"] for name, said in july["checks"].items() if name.startswith("input.")} == {
        "input.price": "seasonal",
        "input.quantity": "seasonal",
        "input.christmas": "seasonal",
    }
    # What is new in a year is no season: its items are others.
    assert july["checks"]["output.category"]["verdict"] == "drift"
    # The log has one November: without a past there is no season.
    assert november["checks"]["input.christmas"]["verdict"] == "drift"
