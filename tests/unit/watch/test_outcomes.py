"""An outcome is a fall: people do less with what they are shown than they did in the ranker's first window."""

import numpy as np
import pyarrow as pa
import pytest

from monitoring.drift.service.outcomes import FLOOR
from monitoring.outcomes import outcome_signals
from tests.unit.watch.world import BEGIN_US, RANKER


def window(rate: float, *, users: int = 400, seed: int = 1, promised: float = 0.1) -> pa.Table:
    """Ten rows a user, clicked with `rate`, of which the scores say `promised`."""
    random = np.random.default_rng(seed)
    rows = users * 10
    return pa.table(
        {
            "user_id": [f"u{n % users}" for n in range(rows)],
            "label": (random.random(rows) < rate).astype(float),
            "score": np.full(rows, promised, np.float32),
            "position": np.arange(rows, dtype=np.int32) // users + 1,
        }
    )


@pytest.mark.parametrize(
    ("now", "verdict"),
    [(0.07, "breach"), (0.10, "ok"), (0.14, "ok")],
    ids=["fell", "as before", "rose"],
)
def test_only_a_fall_is_a_breach(now: float, verdict: str) -> None:
    ctr, calibration = outcome_signals((window(0.10), window(now, seed=2)), RANKER, BEGIN_US)
    assert (ctr.name, calibration.name) == ("outcome.ctr", "outcome.calibration")
    assert (ctr.verdict, calibration.verdict) == (verdict, verdict)
    assert ctr.value == pytest.approx(1 - now / 0.10, abs=0.12)
    assert ctr.threshold == FLOOR


def test_scores_that_promise_more_than_comes_are_a_fall_where_clicks_are_not() -> None:
    sides = window(0.10), window(0.10, seed=2, promised=0.15)
    ctr, calibration = outcome_signals(sides, RANKER, BEGIN_US)
    assert (ctr.verdict, calibration.verdict) == ("ok", "breach")
    assert calibration.value == pytest.approx(1 / 3, abs=0.1)


def test_what_cannot_be_compared_is_inconclusive_and_says_why() -> None:
    few = outcome_signals((window(0.1, users=50), window(0.05, users=50)), RANKER, BEGIN_US)
    assert [s.verdict for s in few] == ["inconclusive"] * 2
    assert "fewer than 100" in few[0].cause
    young = outcome_signals("it has not served for long", RANKER, BEGIN_US)
    assert [(s.name, s.verdict, s.cause) for s in young] == [
        ("outcome.ctr", "inconclusive", "it has not served for long"),
        ("outcome.calibration", "inconclusive", "it has not served for long"),
    ]
