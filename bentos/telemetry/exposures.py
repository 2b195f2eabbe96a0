"""The exposure log: one record a request, never sampled."""

from pathlib import Path

import pyarrow as pa

from bentos.telemetry.kinds import EXPOSURES
from bentos.telemetry.record_log import Hide, RecordLog
from bentos.telemetry.roll import read
from contracts.exposures import Exposure


class ExposureLog(RecordLog[Exposure]):
    """`home/log/exposures`."""

    def __init__(self, home: Path, *, capacity: int = 200_000, hide: Hide | None = None) -> None:
        super().__init__(home, EXPOSURES, capacity=capacity, hide=hide)


def read_exposures(home: Path, since_us: int | None = None, until_us: int | None = None) -> pa.Table:
    """All exposures with `since_us` ≤ timestamp < `until_us` (wall clock), rolled or not, each once."""
    return read(home, EXPOSURES, since_us, until_us)
