"""Two real servers of a tiny world in turn, one without contexts: figures, none of them judged."""

from pathlib import Path

import pytest

from benchmarks.context_logging import SIZES, sentences, served
from benchmarks.serve import Plan


@pytest.mark.slow
def test_pairs_of_servers_with_contexts_and_without_give_a_ratio_of_p99(tmp_path: Path) -> None:
    found = served(Plan(tmp_path, pairs=2, seconds=1.0, size=SIZES["tiny"]))
    assert found["p99_ratio"]["n"] == found["cpu_us_paid"]["n"] == 2
    assert found["off"]["cpu_us"]["median"] > 0
    figure = {"median": 1.0, "low": 1.0, "high": 1.0}
    inside = {"batches": 1, "on": {"cpu_us_paid": figure}, "full": {"cpu_us_paid": figure}}
    assert "Of 2 pairs of servers" in sentences({"in_process": inside, "served": found})
