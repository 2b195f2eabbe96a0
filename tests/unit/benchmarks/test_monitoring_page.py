"""What stands in the made sections of docs/monitoring.md is that of the kept runs."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from benchmarks import context_logging, stream
from benchmarks.drift_report import PAGE
from benchmarks.sections import replaced


@pytest.mark.parametrize(
    ("kept", "section", "made", "command"),
    [
        (context_logging.RESULTS, context_logging.SECTION, context_logging.sentences, "benchmarks.context_logging"),
        (stream.KEPT, stream.SECTION, stream.table, "benchmarks.stream"),
    ],
)
def test_the_page_says_what_was_measured_or_that_nothing_was(
    kept: Any, section: str, made: Callable[[Mapping[str, Any]], str], command: str
) -> None:
    text = PAGE.read_text()
    said = made(json.loads(kept.read_text())) if kept.exists() else "\nNot measured yet.\n"
    assert replaced(text, {section: said}) == text, f"run `python -m {command} --save` again"
