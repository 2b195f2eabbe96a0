"""Statistics of pairs. Coverage by hand from the binomial distribution: 10 pairs, 2nd to 9th, 97.9 %."""

import numpy as np
import pytest

from benchmarks.load.closed_loop import parsed
from benchmarks.paired import in_turn, ratio, spread
from contracts.errors import StreamRecError

WRK = """Running 3s test @ http://127.0.0.1:1
  1 threads and 8 connections
  Latency Distribution
     50%   90.37ms
     75%   95.00ms
     90%    1.10s
     99%  900.00us
  258 requests in 3.00s, 512.00KB read
  Socket errors: connect 0, read 1, write 0, timeout 2
  Non-2xx or 3xx responses: 4
Requests/sec:     85.94
Transfer/sec:    170.00KB
"""


def test_ten_pairs_give_the_second_to_the_ninth():
    found = spread([10, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    assert (found["median"], found["low"], found["high"]) == (5.5, 2, 9)


def test_few_pairs_give_all_that_was_seen():
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0, "n": 3}


def test_the_interval_of_a_median_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = [s["low"] <= 0 <= s["high"] for s in (spread(rng.standard_normal(10).tolist()) for _ in range(2000))]
    assert 0.965 < np.mean(covered) < 0.99


def test_a_ratio_is_taken_within_each_pair():
    """The machine halved its speed in the second pair: the ratio does not notice."""
    found = ratio([100, 50, 100], [50, 25, 50])
    assert (found["median"], found["low"], found["high"]) == (2, 2, 2)
    with pytest.raises(ValueError, match="no pair"):
        ratio([1.0], [0.0])


def test_turns_alternate():
    assert [in_turn("abc", n) for n in (0, 1)] == [["a", "b", "c"], ["c", "b", "a"]]


def test_wrk_s_report_is_read():
    assert parsed(WRK) == {
        "requests": 258,
        "seconds": 3.0,
        "rps": 85.94,
        "p50_ms": 90.37,
        "p99_ms": 0.9,
        "failed": 7,
    }
    with pytest.raises(StreamRecError, match="unable to connect"):
        parsed("unable to connect to 127.0.0.1:1 Connection refused")
