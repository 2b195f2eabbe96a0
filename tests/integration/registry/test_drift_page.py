"""The page of a drift lies under the model's run in a real MLflow on SQLite, and the alert links it there."""

from pathlib import Path

import pytest

from benchmarks.watch_log import Drift, World, write_log, write_reference
from contracts.errors import StreamRecError
from contracts.settings import Settings
from monitoring.alerts.grouping import Notice
from monitoring.alerts.outbox import message
from monitoring.drift.service.run import LOGGED, drift_run
from monitoring.frames.reference import read_reference
from monitoring.reports.page import FOLDER, log_page
from monitoring.watch.schema import read_schema, schema_path
from registry.mlflow_client import connect
from registry.models import Registry
from tests.integration.registry.conftest import Train

HOUR_US = 3_600_000_000


def test_the_page_of_a_drift_is_logged_and_linked(
    registry: Registry, settings: Settings, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.mlflow_uri)
    run_id = train(registry, "paged")["ranking"].run_id
    world = World.draw(0, items=100, users=600)
    reference = read_reference(
        write_reference(tmp_path / "reference", world, rows=4_000), run_id, "streamrec-ranking/1"
    )
    write_log(tmp_path, world, requests=200, since_us=0, until_us=HOUR_US, drift=Drift(price=5.0))
    home, pages = Settings(home=tmp_path), tmp_path / "reports"
    window = {"now_us": HOUR_US, "engine": "scipy", "reference": lambda _: reference, "pages": pages}
    (report,) = drift_run(home, 0, HOUR_US, **window)
    assert report.mlflow == f"runs:/{run_id}/{FOLDER}/drift.html"
    severity = next(s for s in report.signals() if s.name == "drift.severity")
    assert severity.details["file"] == report.page
    notice = Notice("raised", "a", severity.model, "quality", HOUR_US, None, "", (severity,))
    assert message(notice, read_schema(schema_path(tmp_path))).link == report.mlflow
    client = connect(home)

    def kept() -> str:
        assert [file.path for file in client.list_artifacts(run_id, FOLDER)] == [f"{FOLDER}/drift.html"]
        return Path(client.download_artifacts(run_id, f"{FOLDER}/drift.html", str(tmp_path))).read_text()

    assert kept() == Path(report.page).read_text()
    newer = tmp_path / "newer.html"
    newer.write_text("<p>the next window</p>")
    assert log_page(home, run_id, newer, LOGGED) == report.mlflow  # the newest is in the place of the one before
    assert kept() == newer.read_text()
    with pytest.raises(StreamRecError, match=r"logging drift\.html under run ffff"):
        log_page(home, "f" * 32, newer, LOGGED)
