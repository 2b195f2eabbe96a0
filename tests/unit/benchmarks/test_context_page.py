"""The sentences on what a context record costs are those of the kept run."""

import json

from benchmarks.context_logging import SECTION, sentences
from benchmarks.drift_report import PAGE, RESULT
from benchmarks.sections import replaced

KEPT = RESULT.with_name("context_logging.json")


def test_the_page_says_what_was_measured_or_that_nothing_was() -> None:
    text = PAGE.read_text()
    said = sentences(json.loads(KEPT.read_text())) if KEPT.exists() else "\nNot measured yet.\n"
    assert replaced(text, {SECTION: said}) == text, "run `python -m benchmarks.context_logging --save` again"
