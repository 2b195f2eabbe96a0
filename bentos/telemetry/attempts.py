"""The attempt log: one record for each call that a gateway makes to a variant."""

from pathlib import Path

import pyarrow as pa

from bentos.telemetry.kinds import ATTEMPTS
from bentos.telemetry.record_log import Hide, RecordLog
from bentos.telemetry.roll import read
from contracts.attempts import Attempt


class AttemptLog(RecordLog[Attempt]):
    """`home/log/attempts`."""

    def __init__(self, home: Path, *, capacity: int = 200_000, hide: Hide | None = None) -> None:
        super().__init__(home, ATTEMPTS, capacity=capacity, hide=hide)


def read_attempts(home: Path, since_us: int | None = None, until_us: int | None = None) -> pa.Table:
    """All attempts with `since_us` ≤ timestamp < `until_us` (wall clock), rolled or not, each once."""
    return read(home, ATTEMPTS, since_us, until_us)
