"""Skew of the ranker that answered most: `monitoring/skew`."""

from monitoring.signals import Signal
from monitoring.skew.run import skew
from monitoring.watch.checks.base import Asked

HOUR_US = 3_600_000_000


def check(asked: Asked) -> list[Signal]:
    windows = asked.schema.windows
    since_us = asked.now_us - int(windows.drift_hours * HOUR_US)
    report = skew(asked.settings, since_us=since_us, until_us=asked.now_us, now_us=asked.now_us, seed=windows.seed)
    return report.signals()
