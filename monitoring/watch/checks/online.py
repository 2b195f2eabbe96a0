"""Online detectors on the stream of answers, between two looks at whole windows: `monitoring/drift/stream`."""

from monitoring.drift.stream.run import stream_run
from monitoring.signals import Signal
from monitoring.watch.checks.base import Asked


def check(asked: Asked) -> list[Signal]:
    windows = asked.schema.windows
    reports = stream_run(asked.settings, now_us=asked.now_us, hours=windows.drift_hours, seed=windows.seed)
    return [signal for report in reports for signal in report.signals()]
