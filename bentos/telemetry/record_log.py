"""A log of records that are written once and never sampled: exposures, attempts."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from bentos.telemetry.kinds import LogKind
from bentos.telemetry.roll import log_folder
from bentos.telemetry.segments import Counts, SegmentWriter

R = TypeVar("R", bound=msgspec.Struct)
Hide = Callable[[str], str]


class RecordLog(Generic[R]):
    """
    Args:
        home: the log is `home/log/KIND`.
        capacity: records that may wait for the disk. Past it they are lost, and counted in `counts().dropped`: about a
            minute of a full disk at 3,000 requests/s.
        hide: what a user's id becomes in the log (contracts/user_keys.py).
    """

    def __init__(self, home: Path, kind: LogKind, *, capacity: int = 200_000, hide: Hide | None = None) -> None:
        self._writer = SegmentWriter(log_folder(home, kind), capacity)
        self._hide = hide

    def append(self, record: R) -> None:
        """Hand the record to the writer's thread: a few microseconds. Never blocks, never raises."""
        self._writer.append(hidden(record, self._hide) if self._hide else record)

    @property
    def healthy(self) -> str | None:
        """None, or why records do not reach the disk."""
        return self._writer.healthy

    def counts(self) -> Counts:
        return self._writer.counts()

    def close(self, timeout_s: float = 5.0) -> None:
        """Flush and end the segment; after the last request has been answered."""
        self._writer.close(timeout_s)


def hidden(record: R, hide: Hide) -> R:
    """The record with the user's id hidden, also where the user is the unit of assignment."""
    user_id: str = record.user_id  # type: ignore[attr-defined]
    changes = {"user_id": hide(user_id)}
    if getattr(record, "unit", None) == user_id:
        changes["unit"] = changes["user_id"]
    return msgspec.structs.replace(record, **changes)
