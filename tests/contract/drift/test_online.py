"""What every online detector keeps to: the free ones and alibi-detect's. Without alibi-detect this suite fails."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from monitoring.drift.base import CannotJudge
from monitoring.drift.online.base import Online
from monitoring.drift.online.registry import ONLINE

ERT = 500
CLEAN = 2_000


def rows(takes: str, count: int, seed: int, *, drifted: bool = False) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    if takes == "values":
        return rng.lognormal(1.0 if drifted else 0.0, 1, count)
    if takes == "hits":
        return rng.random(count) < (0.3 if drifted else 0.1)
    return rng.normal(0.7 if drifted else 0.0, 1, (count, 8))


# Their thresholds take 6 s each to simulate.
SLOW = ("alibi_fet", "alibi_mmd")
KINDS = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ONLINE]


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest) -> Online:
    """One for all tests of a kind: alibi-detect's take seconds to make."""
    kind = ONLINE[request.param]
    return kind(rows(kind.takes, 5_000, 1), ert=ERT, seed=1)


def test_false_alarms_are_as_rare_as_was_asked_for(made: Online) -> None:
    alarms = [a for row in rows(made.takes, CLEAN, 2) if (a := made.update(row))]
    # At one in 500 rows, 2,000 rows have 4 on average; 12 would come once in 3,000 times.
    assert len(alarms) < 12


def test_a_change_is_found_within_one_window_of_rows_and_looked_for_again(made: Online) -> None:
    alarms = [a for row in rows(made.takes, 1_500, 3, drifted=True) if (a := made.update(row))]
    assert len(alarms) >= 3
    assert alarms[0].rows > 0
    assert alarms[1].row - alarms[0].row == alarms[1].rows
    assert alarms[1].rows <= 500


@pytest.mark.parametrize("name", ONLINE)
def test_a_reference_that_says_nothing_is_refused_with_the_reason(name: str) -> None:
    kind = ONLINE[name]
    some = rows(kind.takes, 100, 1)
    with pytest.raises(CannotJudge, match="fewer than"):
        kind(some[:5], ert=ERT, seed=1)
    with pytest.raises(CannotJudge, match="does not vary"):
        kind(np.repeat(some[:1], 100, axis=0), ert=ERT, seed=1)


def test_a_row_at_a_time_gives_the_same_alarms_every_time() -> None:
    for name in ("cusum", "tumbling_ks", "rate", "estimated_rate", "tumbling_mmd"):
        kind = ONLINE[name]
        once, again = (
            [a for row in rows(kind.takes, 800, 4, drifted=True) if (a := detector.update(row))]
            for detector in (kind(rows(kind.takes, 2_000, 1), ert=ERT, seed=7) for _ in range(2))
        )
        assert once == again
