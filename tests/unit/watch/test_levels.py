"""Burn rates, with figures by hand from the workbook's table 5-8; and counts that are kept from look to look."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from monitoring.levels.burn import MINUTE_US, PAIRS, burns
from monitoring.levels.levels import level_signals, streaming_signal
from monitoring.levels.minutes import ANSWERED, FILE, IN_TIME, MINUTE, REQUESTS, TIMED, count, follow
from monitoring.watch.schema import Levels

NOW = 29_000_000  # minutes since the epoch
LEVELS = Levels()


def rows(minutes: int, requests: int, bad: int, slow: int = 0, end: int = NOW) -> np.ndarray:
    made = np.zeros((minutes, 6), np.int64)
    made[:, MINUTE] = np.arange(end - minutes, end)
    made[:, [REQUESTS, TIMED]] = requests
    made[:, ANSWERED] = requests - bad
    made[:, IN_TIME] = requests - slow
    return made


def verdicts(counts: np.ndarray) -> dict[str, str]:
    return {s.name: s.verdict for s in level_signals(counts, LEVELS, NOW * MINUTE_US)}


def test_a_hundredth_of_failures_burns_ten_times_the_budget_of_a_thousandth():
    made = rows(60, 100, 1)
    found = burns(made[:, MINUTE], made[:, ANSWERED], made[:, REQUESTS], 0.999, NOW)
    assert [round(f.long, 9) for f in found] == [10.0, 10.0, 10.0]
    assert [f.breached for f in found] == [False, True, True]  # 14.4 and 6 and 1
    assert [(p.long_minutes, p.short_minutes, p.factor) for p in PAIRS] == [(60, 5, 14.4), (360, 30, 6), (4320, 360, 1)]


def test_a_burn_that_is_over_is_no_breach_though_the_long_window_still_has_it():
    made = np.concatenate([rows(55, 100, 3, end=NOW - 5), rows(5, 100, 0)])
    found = burns(made[:, MINUTE], made[:, ANSWERED], made[:, REQUESTS], 0.999, NOW)
    assert found[0].long > 14.4
    assert found[0].short == 0
    assert not found[0].breached


def test_a_fast_burn_pages_and_a_slow_one_is_a_ticket():
    fast = level_signals(rows(60, 100, 2), LEVELS, NOW * MINUTE_US)[0]
    assert (fast.verdict, fast.details["severity"]) == ("breach", "page")
    assert "20.0 times too fast over 1 h" in fast.cause
    slow = level_signals(rows(4320, 1000, 2), LEVELS, NOW * MINUTE_US)[0]
    assert (slow.verdict, slow.details["severity"]) == ("breach", "ticket")


def test_availability_and_latency_are_told_apart():
    assert verdicts(rows(600, 100, 0, slow=4)) == {"level.availability": "ok", "level.latency": "ok"}
    assert verdicts(rows(600, 100, 0, slow=80)) == {"level.availability": "ok", "level.latency": "breach"}


def test_few_requests_say_nothing():
    assert verdicts(rows(10, 1, 1)) == {"level.availability": "inconclusive", "level.latency": "inconclusive"}
    assert verdicts(rows(0, 0, 0)) == {"level.availability": "inconclusive", "level.latency": "inconclusive"}


@pytest.mark.parametrize(("age_s", "verdict"), [(0, "ok"), (60, "ok"), (61, "breach"), (-5, "ok")])
def test_streaming_features_may_be_a_minute_old(age_s: float, verdict: str):
    now_us = NOW * MINUTE_US
    assert streaming_signal(now_us - int(age_s * 1e6), LEVELS, now_us).verdict == verdict
    assert streaming_signal(None, LEVELS, now_us).verdict == "inconclusive"


def tables(stamps_us: list[int], outcomes: list[str], ms: list[list[float]]) -> tuple[pa.Table, pa.Table]:
    calls = [(f"r{n}", at, False, each) for n, at in enumerate(stamps_us) for each in ms[n]]
    ids, at, shadow, times = zip(*calls, strict=True) if calls else ((), (), (), ())
    return (
        pa.table({"timestamp_us": pa.array(stamps_us, pa.int64()), "outcome": pa.array(outcomes, pa.string())}),
        pa.table(
            {
                "request_id": pa.array(ids, pa.string()),
                "timestamp_us": pa.array(at, pa.int64()),
                "shadow": pa.array(shadow, pa.bool_()),
                "ms": pa.array(times, pa.float64()),
            }
        ),
    )


def test_a_request_s_time_is_that_of_all_calls_it_waited_for_and_shadows_are_none():
    at = NOW * MINUTE_US
    exposures, attempts = tables([at, at + 1, at + MINUTE_US], ["ok", "error", "empty"], [[150, 60], [10], [200]])
    shadow = attempts.slice(0, 1).set_column(2, "shadow", pa.array([True]))
    found = count(exposures, pa.concat_tables([attempts, shadow]), 200)
    assert found[:, [REQUESTS, ANSWERED, TIMED, IN_TIME]].tolist() == [[2, 1, 2, 1], [1, 1, 1, 1]]


def test_counts_are_kept_and_only_what_is_new_is_read_again(tmp_path: Path):
    asked: list[tuple[int, int]] = []

    def read(since_us: int, until_us: int) -> tuple[pa.Table, pa.Table]:
        asked.append((since_us, until_us))
        stamps = [m * MINUTE_US for m in range(NOW - 30, NOW + 30) if since_us <= m * MINUTE_US < until_us]
        return tables(stamps, ["ok"] * len(stamps), [[1.0]] * len(stamps))

    first = follow(tmp_path, read, 200, NOW * MINUTE_US)
    second = follow(tmp_path, read, 200, (NOW + 10) * MINUTE_US)
    assert (len(first), len(second)) == (30, 40)
    assert len(np.unique(second[:, MINUTE])) == 40
    assert asked[1][0] > (NOW - 10) * MINUTE_US
    (tmp_path / FILE).write_bytes(b"no counts")
    assert len(follow(tmp_path, read, 200, (NOW + 10) * MINUTE_US)) == 40
    follow(tmp_path, read, 100, (NOW + 10) * MINUTE_US)  # another limit: all is counted anew
    assert asked[-1][0] < (NOW - 4000) * MINUTE_US
