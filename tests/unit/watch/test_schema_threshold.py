"""The threshold of a row of the schema: a breach has to be over it as well, and nothing gets stricter by it."""

from dataclasses import replace
from pathlib import Path

from monitoring.signals import Signal
from monitoring.watch.schema import read_schema, schema_path

SCHEMA = read_schema(schema_path(Path("nowhere")))
BREACH = Signal("drift.severity", "streamrec-ranking/1", "breach", 5, value=0.3, threshold=0.1, since=1, cause="price")


def with_threshold(limit: float):
    rows = tuple(
        row.model_copy(update={"threshold": limit}) if row.fits("drift.severity") else row for row in SCHEMA.signals
    )
    return SCHEMA.model_copy(update={"signals": rows})


def test_without_one_the_check_alone_decides():
    assert SCHEMA.weighed(BREACH) == BREACH


def test_a_breach_that_is_not_over_it_is_none_and_says_so():
    found = with_threshold(0.3).weighed(BREACH)
    assert (found.verdict, found.threshold, found.since) == ("ok", 0.3, None)
    assert found.cause == "0.3, a breach from 0.3 on: price"
    assert with_threshold(0.2).weighed(BREACH) == BREACH


def test_what_was_no_breach_stays_none():
    well = replace(BREACH, verdict="ok")
    assert with_threshold(0.1).weighed(well) == well
    unknown = replace(BREACH, verdict="inconclusive", value=None)
    assert with_threshold(0.1).weighed(unknown) == unknown
