"""Drift of what the service logged, of each ranker that served in the window: `monitoring/drift/service`."""

from monitoring.drift.service.run import drift_run
from monitoring.privacy.retain import REPORTS
from monitoring.signals import Signal
from monitoring.watch.checks.base import Asked

HOUR_US = 3_600_000_000


def check(asked: Asked) -> list[Signal]:
    windows = asked.schema.windows
    since_us = asked.now_us - int(windows.drift_hours * HOUR_US)
    reports = drift_run(
        asked.settings,
        since_us,
        asked.now_us,
        now_us=asked.now_us,
        season=windows.season,
        pages=asked.settings.home / REPORTS if asked.settings.reports_mb else None,
        engine=windows.engine,
        seed=windows.seed,
    )
    return [signal for report in reports for signal in report.signals()]
