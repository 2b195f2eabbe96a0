"""Ranking metrics of a report's window, and of the ranker's first window of that length."""

from contracts.errors import StreamRecError
from contracts.settings import Settings
from monitoring.drift.service.labelled import first_served, own_labels
from monitoring.drift.service.report import DriftReport
from monitoring.reports.ranking import Ranking, ranking


def rankings(settings: Settings, report: DriftReport, *, now_us: int) -> tuple[dict[str, Ranking], str]:
    """`window`, and `first` where the ranker served before it; empty and why where labels cannot be had."""
    if not report.bentos:
        return {}, report.why
    try:
        labels = own_labels(settings, report.bentos[0], now_us=now_us)
        found = {"window": ranking(labels(report.since_us, report.until_us, report.ranker))}
        first_us = first_served(settings.home, report.ranker, report.bentos[0], report.until_us)
        end_us = min((first_us or report.since_us) + report.until_us - report.since_us, report.since_us)
        if first_us is not None and end_us > first_us:
            found = {"first": ranking(labels(first_us, end_us, report.ranker)), **found}
    except (StreamRecError, OSError) as error:
        return {}, f"what people did cannot be read: {getattr(error, 'message', error)}"
    return found, ""
