"""The tables of docs/monitoring.md are those of the study's own JSON, and the study keeps what was asked of it."""

import json

from benchmarks.drift_report import PAGE, RESULT, page

STUDY = json.loads(RESULT.read_text())


def test_the_page_says_what_was_measured() -> None:
    text = PAGE.read_text()
    assert page(text, STUDY) == text, "run `python -m benchmarks.drift_report`"


def test_false_alarms_are_within_the_bound_and_every_plant_is_found() -> None:
    runs = [run for log in ("retail", "world") for name, run in STUDY[log].items() if name in ("scipy", "alibi")]
    assert len(runs) >= 3
    for run in runs:
        assert run["false_alarms"] <= run["bound"]
        assert min(run["found"].values()) >= 0.95 * run["windows"]
