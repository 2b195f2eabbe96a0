"""The attempt log: one record for each call that a gateway makes to a variant."""

from pathlib import Path

import pyarrow as pa

from bentos.telemetry.kinds import ATTEMPTS
from bentos.telemetry.roll import log_folder, read
from bentos.telemetry.segments import Counts, SegmentWriter
from contracts.attempts import Attempt


class AttemptLog:
    """
    Args:
        home: the log is `home/log/attempts`.
        capacity: records that may wait for the disk; past it they are lost and counted. Evidence then has fewer of both
            arms: it is late, not wrong.
    """

    def __init__(self, home: Path, *, capacity: int = 200_000) -> None:
        self._writer = SegmentWriter(log_folder(home, ATTEMPTS), capacity)

    def append(self, attempt: Attempt) -> None:
        """Hand the record to the writer's thread: a few microseconds. Never blocks, never raises."""
        self._writer.append(attempt)

    @property
    def healthy(self) -> str | None:
        """None, or why records do not reach the disk."""
        return self._writer.healthy

    def counts(self) -> Counts:
        return self._writer.counts()

    def close(self, timeout_s: float = 5.0) -> None:
        self._writer.close(timeout_s)


def read_attempts(home: Path, since_us: int | None = None, until_us: int | None = None) -> pa.Table:
    """All attempts with `since_us` ≤ timestamp < `until_us` (wall clock), rolled or not, each once."""
    return read(home, ATTEMPTS, since_us, until_us)
