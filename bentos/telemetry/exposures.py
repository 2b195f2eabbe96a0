"""The exposure log: one record a request, never sampled."""

from pathlib import Path

import pyarrow as pa

from bentos.telemetry.kinds import EXPOSURES
from bentos.telemetry.roll import log_folder, read
from bentos.telemetry.segments import Counts, SegmentWriter
from contracts.exposures import Exposure


class ExposureLog:
    """
    Args:
        home: the log is `home/log/exposures`.
        capacity: records that may wait for the disk. Past it they are lost, and counted in `counts().dropped`: about a
            minute of a full disk at 3,000 requests/s.
    """

    def __init__(self, home: Path, *, capacity: int = 200_000) -> None:
        self._writer = SegmentWriter(log_folder(home, EXPOSURES), capacity)

    def append(self, exposure: Exposure) -> None:
        """Hand the record to the writer's thread: a few microseconds. Never blocks, never raises."""
        self._writer.append(exposure)

    @property
    def healthy(self) -> str | None:
        """None, or why records do not reach the disk."""
        return self._writer.healthy

    def counts(self) -> Counts:
        return self._writer.counts()

    def close(self, timeout_s: float = 5.0) -> None:
        """Flush and end the segment; after the last request has been answered."""
        self._writer.close(timeout_s)


def read_exposures(home: Path, since_us: int | None = None, until_us: int | None = None) -> pa.Table:
    """All exposures with `since_us` ≤ timestamp < `until_us` (wall clock), rolled or not, each once."""
    return read(home, EXPOSURES, since_us, until_us)
