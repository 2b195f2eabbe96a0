"""What the watch said of a candidate is a guardrail of its release: a breach fails, silence is inconclusive."""

import pytest

from monitoring.evidence.watch import watched
from monitoring.signals import Signal
from registry.releases.judge import Setting, judge
from registry.releases.policy import Metric

NOW = 1_767_225_600_000_000
SKEW = Metric(
    name="skew", kind="watch", direction="lower", critical=True, limit=0, signals=("skew.*", "drift.severity")
)
NAMES = ("streamrec:b", "streamrec-ranking/2")


def said(name: str, verdict: str, model: str = "streamrec-ranking/2", age_h: float = 1) -> Signal:
    return Signal(name, model, verdict, NOW - int(age_h * 3.6e9), cause="seen")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("signals", "verdict"),
    [
        ([said("skew.rows.price", "breach")], "fail"),
        ([said("skew.rows.price", "ok"), said("skew.statistics.price", "ok")], "pass"),
        ([said("skew.rows.price", "ok"), said("drift.severity", "inconclusive")], "inconclusive"),
        ([said("skew.rows.price", "breach"), said("drift.severity", "inconclusive")], "fail"),
        ([said("skew.rows.price", "breach", "streamrec-ranking/1")], "inconclusive"),  # the champion's
        ([said("drift.input.price", "breach")], "inconclusive"),  # not asked for
        ([said("skew.rows.price", "ok", age_h=27)], "inconclusive"),
        ([], "inconclusive"),
    ],
)
def test_the_gate_s_word(signals: list[Signal], verdict: str) -> None:
    found = judge(SKEW, watched(SKEW, NAMES, signals, NOW), Setting(control=True))
    assert found.verdict == verdict, found.reason
    assert found.critical


def test_a_metric_of_this_kind_names_signals_and_no_other_does() -> None:
    with pytest.raises(ValueError, match="needs `signals`"):
        Metric(name="skew", kind="watch", direction="lower", limit=0)
    with pytest.raises(ValueError, match="needs `signals`"):
        Metric(name="empty", kind="empty", direction="lower", limit=0, signals=("skew.*",))
