"""The page for people: ours above Evidently's, in one file that opens without a network."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.watch_log import Drift, World, write_log, write_reference
from contracts.settings import Settings
from monitoring.alerts.grouping import Notice
from monitoring.alerts.outbox import message
from monitoring.drift.service.report import DriftReport
from monitoring.drift.service.run import drift_run
from monitoring.frames.reference import read_reference
from monitoring.reports.page import page_name, write_page
from monitoring.reports.ranking import Ranking, ranking
from monitoring.watch.schema import read_schema, schema_path

DAY_US = 86_400_000_000


def labelled(slates: list[list[int | None]]) -> pa.Table:
    return pa.table(
        {
            "request_id": [f"r{i}" for i, slate in enumerate(slates) for _ in slate],
            "position": pa.array([p for slate in slates for p in range(1, len(slate) + 1)], pa.int32()),
            "label": pa.array([label for slate in slates for label in slate], pa.float64()),
        }
    )


def test_ranking_metrics_are_those_of_the_hand():
    found = ranking(labelled([[1, 0, 0], [0, 0, 1], [0, 0, 0]]))
    assert (found.answers, found.acted_on) == (3, 2)
    assert found.ctr == pytest.approx(2 / 9)
    assert found.mrr == pytest.approx((1 + 1 / 3) / 2)
    assert found.ndcg == pytest.approx((1 + 1 / np.log2(4)) / 2)
    assert found.first_place == 0.5


def test_two_hits_in_the_first_places_are_ideal():
    assert ranking(labelled([[1, 1, 0]])).ndcg == pytest.approx(1)


@pytest.mark.parametrize("slates", [[[0, 0]], [[None, None]]])
def test_without_a_positive_there_is_no_ranking_metric(slates: list[list[int | None]]):
    assert ranking(labelled(slates)).ndcg is None


def test_a_drift_gets_a_page_with_our_verdicts_above_evidentlys_and_no_outside_resource(tmp_path: Path):
    world = World.draw(0, items=300, users=2_000)
    reference = read_reference(write_reference(tmp_path / "reference", world, rows=10_000), "", "streamrec-ranking/1")
    write_log(tmp_path, world, requests=400, since_us=0, until_us=DAY_US, drift=Drift(price=3.0))
    (report,) = drift_run(
        Settings(home=tmp_path),
        0,
        DAY_US,
        now_us=DAY_US,
        engine="scipy",
        reference=lambda _: reference,
        pages=tmp_path / "reports",
    )
    page = Path(report.page)
    assert page.name == "drift-streamrec-ranking-1-19700102T000000Z.html"
    text = page.read_text()
    assert page.stat().st_size < 8_000_000
    assert text.index("input.log_price") < text.index("root_metric")
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', text)
    severity = next(s for s in report.signals() if s.name == "drift.severity")
    assert severity.details["page"] == str(page)
    for signal in (severity, next(s for s in report.signals() if s.name == "drift.input.log_price")):
        notice = Notice("raised", "a", signal.model, "quality", DAY_US, None, "", (signal,))
        assert message(notice, read_schema(schema_path(tmp_path))).link == str(page)  # people find it from the alert
    again = write_page(tmp_path / "again.html", report, {"window": Ranking(9, 3, 0.1, 0.5, 0.4, 0.2)})
    assert "<h2>Ranking</h2>" in again.read_text()


def test_a_window_that_cannot_be_judged_gets_a_page_that_says_why(tmp_path: Path):
    report = DriftReport("", (), 0, DAY_US, DAY_US, 0, 0, None, why="no answer <of> the window was logged")
    text = write_page(tmp_path / page_name(report), report).read_text()
    assert "no answer &lt;of&gt; the window" in text
