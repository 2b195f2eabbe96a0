"""The service levels, from our own exposures and attempts."""

from contextlib import suppress

import pyarrow as pa

from bentos.telemetry.attempts import read_attempts
from bentos.telemetry.exposures import read_exposures
from bentos.telemetry.item_counts import read_counts
from contracts.errors import Unreachable
from monitoring.levels.levels import level_signals, streaming_signal
from monitoring.levels.minutes import follow
from monitoring.signals import Signal
from monitoring.watch.checks.base import Asked


def check(asked: Asked) -> list[Signal]:
    home, levels = asked.settings.home, asked.schema.levels

    def read(since_us: int, until_us: int) -> tuple[pa.Table, pa.Table]:
        exposures = read_exposures(home, since_us, until_us).select(["timestamp_us", "outcome"])
        attempts = read_attempts(home, since_us, until_us)
        return exposures, attempts.select(["request_id", "timestamp_us", "shadow", "ms"])

    rows = follow(home, read, levels.latency_ms, asked.now_us)
    counted_us = None
    with suppress(Unreachable):  # a file that cannot be read is replaced by the next count
        counts = read_counts(home)
        counted_us = counts.now_us if counts is not None else None
    return [*level_signals(rows, levels, asked.now_us), streaming_signal(counted_us, levels, asked.now_us)]
