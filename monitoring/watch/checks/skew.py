"""Skew of the ranker of one Bento, also of a candidate that a few users meet: `monitoring/skew`."""

from contextlib import suppress
from dataclasses import replace

from contracts.errors import NotFound
from monitoring.signals import Signal
from monitoring.skew.report import WHOLE
from monitoring.skew.run import skew
from monitoring.watch.checks.base import Asked
from registry.bento_store import stored_bento
from registry.lineage import pinned_uris

HOUR_US = 3_600_000_000


def check(asked: Asked) -> list[Signal]:
    windows = asked.schema.windows
    since_us, now_us = asked.now_us - int(windows.drift_hours * HOUR_US), asked.now_us
    model: str | None = None  # of a Bento that was built elsewhere: the ranker that answered most
    with suppress(NotFound):
        model = pinned_uris(stored_bento(asked.bento, asked.settings.home))["ranking"] or None
    try:
        report = skew(asked.settings, since_us=since_us, until_us=now_us, now_us=now_us, model=model, seed=windows.seed)
    except NotFound as error:
        return [Signal(WHOLE, asked.bento, "inconclusive", now_us, cause=error.message)]
    # What could not be told of is still of somebody, whose former signals hold no more.
    named = report.model or (model or "").removeprefix("models:/") or asked.bento
    return replace(report, model=named).signals()
