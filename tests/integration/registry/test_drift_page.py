"""The page of a drift lies under the model's run in a real MLflow on SQLite, and the alert links it there."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from contracts.settings import Settings
from monitoring.alerts.grouping import Notice
from monitoring.alerts.outbox import message
from monitoring.drift.engines.scipy import Scipy
from monitoring.drift.service.judgement import judgement
from monitoring.drift.service.report import DriftReport
from monitoring.drift.service.run import with_page
from monitoring.reports.page import FOLDER
from monitoring.watch.schema import read_schema, schema_path
from registry.mlflow_client import connect
from registry.models import Registry
from tests.integration.registry.conftest import Train

HOUR_US = 3_600_000_000


def report(run_id: str, hour: int) -> DriftReport:
    """A drift without samples, of which Evidently draws nothing: tests/unit/drift_service/test_page.py has one."""
    random = np.random.default_rng(0)
    before, now = (pa.table({"price": random.normal(mean, 1, 500)}) for mean in (0, 2))
    judged = judgement(before, now, ["price"], engine=Scipy())
    window = (hour * HOUR_US, (hour + 1) * HOUR_US, (hour + 1) * HOUR_US)
    return DriftReport("streamrec-ranking/1", (), *window, 500, 500, judged, run_id=run_id)


def linked(found: DriftReport, home: Path) -> str:
    severity = next(s for s in found.signals() if s.name == "drift.severity")
    assert severity.details["file"] == found.page
    notice = Notice("raised", "a", severity.model, "quality", HOUR_US, None, "", (severity,))
    return message(notice, read_schema(schema_path(home))).link


def test_the_page_of_a_drift_is_logged_and_linked(
    registry: Registry, settings: Settings, train: Train, tmp_path: Path
) -> None:
    run_id = train(registry, "paged")["ranking"].run_id
    client = connect(settings)

    def kept() -> str:
        assert [file.path for file in client.list_artifacts(run_id, FOLDER)] == [f"{FOLDER}/drift.html"]
        return Path(client.download_artifacts(run_id, f"{FOLDER}/drift.html", str(tmp_path))).read_text()

    first = with_page(settings, report(run_id, 0), tmp_path / "reports")
    assert first.problems == ()
    assert linked(first, tmp_path) == first.mlflow == f"runs:/{run_id}/{FOLDER}/drift.html"
    assert kept() == Path(first.page).read_text()
    second = with_page(settings, report(run_id, 1), tmp_path / "reports")  # the newest is in the place of the first
    assert kept() == Path(second.page).read_text() != Path(first.page).read_text()
    away = with_page(settings, report("f" * 32, 2), tmp_path / "reports")  # no such run: told, and the file is linked
    assert "logging drift.html under run ffff" in away.problems[0]
    assert linked(away, tmp_path) == away.page
