"""The loop in docs/monitoring.md is that of the kept run, in the order that a loop has."""

import json

from benchmarks.drift_report import PAGE
from benchmarks.sections import replaced
from benchmarks.watch_loop import RESULT, WORDS, rates, table

FOUND = json.loads(RESULT.read_text())


def test_the_page_says_what_the_run_gave() -> None:
    text = PAGE.read_text()
    made = replaced(text, {"watch-loop": table(FOUND), "watch-loop-ctr": rates(FOUND)})
    assert made == text, "run `python -m benchmarks.watch_loop`"


def test_drift_alert_training_release_and_recovery_follow_each_other() -> None:
    moments = [FOUND["moments_s"][name] for name in WORDS]
    assert moments == sorted(moments)
    assert moments[0] == 0
