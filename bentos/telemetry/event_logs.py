"""What an event log must do, and the one place that chooses one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bentos.telemetry.event_store import EventStore
from contracts.errors import UsageError
from contracts.events import Event
from contracts.settings import Settings
from features.online.url import without_secrets


class EventLog(Protocol):
    """Adapters: `event_store.py` (SQLite), `event_stream.py` (Redis Streams). All raise `Unreachable` when they cannot
    write or read."""

    @property
    def id(self) -> str:
        """Of this very log, for those that remember a position in it."""
        ...

    def append(self, batches: Sequence[Sequence[Event]]) -> list[tuple[int, int]]:
        """Store several batches with one disk sync; (accepted, duplicates) of each. Durable on return."""
        ...

    def after(self, position: str, limit: int) -> tuple[list[Event], str]:
        """The next events, oldest first, and the position after them. An empty position is the beginning."""
        ...

    def advance(self, now_us: int, taken: str | None = None) -> None:
        """Upkeep, once a minute. taken: the position up to which another online store has taken events in."""
        ...

    def close(self) -> None: ...


def is_redis(event_log: str) -> bool:
    """
    Raises:
        UsageError: neither `sqlite` nor the address of a Redis.
    """
    if event_log == "sqlite":
        return False
    if event_log.startswith(("redis://", "rediss://", "unix://")):
        return True
    raise UsageError(f"`event_log` is {without_secrets(event_log)!r}: it must be sqlite or a redis:// URL")


def open_event_log(settings: Settings, home: Path) -> EventLog:
    """`settings.event_log`: `sqlite` (events.db in `home`) or a `redis://` URL.

    Raises:
        UsageError: another word. Unreachable: events.db cannot be opened; a Redis is reached at the first use.
    """
    if is_redis(settings.event_log):
        from bentos.telemetry.event_stream import RedisEventLog

        return RedisEventLog(settings.event_log, keep_days=settings.event_log_days)
    return EventStore(home)
