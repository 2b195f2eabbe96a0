"""The one place that chooses an online store."""

from pathlib import Path

from contracts.errors import UsageError
from contracts.settings import Settings
from features.online.base import OnlineStore
from features.online.memory import MemoryStore
from features.online.sqlite import SqliteStore
from features.online.url import without_secrets


def open_store(settings: Settings, home: Path | None = None) -> OnlineStore:
    """`settings.online_store`: `sqlite` (files in `home`, default `settings.home`), `memory`, or a `redis://` URL.

    Opening reaches for nothing: the first read does.

    Raises:
        UsageError: another word.
    """
    wanted = settings.online_store
    if wanted == "sqlite":
        return SqliteStore(home or settings.home)
    if wanted == "memory":
        return MemoryStore()
    if wanted.startswith(("redis://", "rediss://", "unix://")):
        from features.online.redis import RedisStore

        return RedisStore(wanted)
    raise UsageError(f"`online_store` is {without_secrets(wanted)!r}: it must be sqlite, memory or a redis:// URL")
