"""SQL of an operator: sums over units, or words."""

import pyarrow as pa
import pytest

from monitoring.evidence.cells import Sums
from monitoring.evidence.sql import sql_sums
from tests.unit.evidence.records import BEGIN_US, RELEASE, attempts, event, events, exposure, exposures

PLAIN = "SELECT unit, count(*) AS numerator, 1 AS denominator FROM exposures GROUP BY unit"


@pytest.fixture
def tables() -> dict[str, pa.Table]:
    arms = ["candidate", "candidate", "control", "champion"]
    shown = [exposure(f"q{i}", f"u{i % 4}", arms[i % 4], BEGIN_US, ["i"]) for i in range(10)]
    acts = [event("u0", "i", "click", BEGIN_US, "q0"), event("u2", "i", "click", BEGIN_US, "q2")]
    return {"exposures": exposures(shown), "attempts": attempts([]), "events": events(acts)}


def test_sums_are_over_the_units_of_each_arm(tables: dict[str, pa.Table]) -> None:
    # u0: q0, q4, q8; u1: q1, q5, q9; u2 (control): q2, q6; u3 is the champion's
    assert sql_sums(PLAIN, RELEASE, tables) == {
        "candidate": Sums(2, 6.0, 2.0, 18.0, 2.0, 6.0, 2),
        "control": Sums(1, 2.0, 1.0, 4.0, 1.0, 2.0, 1),
    }


def test_all_three_tables_can_be_joined(tables: dict[str, pa.Table]) -> None:
    query = """
        SELECT e.unit, count(v.event_id) AS numerator, count(*) AS denominator
        FROM exposures e LEFT JOIN events v USING (request_id) LEFT JOIN attempts a USING (request_id) GROUP BY 1;
    """
    found = sql_sums(query, RELEASE, tables)
    assert isinstance(found, dict)
    assert (found["candidate"].sum_x, found["candidate"].sum_y) == (1.0, 6.0)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT nothing FROM nowhere", "failed"),
        ("SELECT unit FROM exposures", "numerator"),
        ("SELECT 1; SELECT 2", "not one SELECT"),
        ("DROP TABLE exposures", "not one SELECT"),
        ("COPY exposures TO '/tmp/stolen.csv'", "not one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "failed"),
        ("SELECT * FROM '/etc/passwd'", "failed"),
        ("SELECT * FROM tables", "failed"),  # a variable of the caller
        ("SELECT unit, 'x' AS numerator, 1 AS denominator FROM exposures", "failed"),
        ("ATTACH '/tmp/other.db'", "not one SELECT"),
        ("", "not one SELECT"),
        ("SELECT 1) SELECT (2", "failed"),
    ],
)
def test_what_is_no_figure_is_words(tables: dict[str, pa.Table], query: str, words: str) -> None:
    found = sql_sums(query, RELEASE, tables)
    assert isinstance(found, str)
    assert words in found


def test_a_query_without_end_is_stopped(tables: dict[str, pa.Table]) -> None:
    endless = """
        SELECT 'u' AS unit, sum(a.range * b.range) AS numerator, 1 AS denominator
        FROM range(10000000) a, range(10000000) b
    """
    found = sql_sums(endless, RELEASE, tables, timeout_s=0.3)
    assert isinstance(found, str)
    assert "took over" in found


def test_no_rows_are_no_arms(tables: dict[str, pa.Table]) -> None:
    assert sql_sums(PLAIN + " HAVING false", RELEASE, tables) == {}
