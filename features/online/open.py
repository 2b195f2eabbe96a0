"""The one place that chooses an online store."""

from pathlib import Path

from contracts.errors import UsageError
from contracts.settings import Settings
from features.online.base import OnlineStore
from features.online.memory import MemoryStore
from features.online.sqlite import SqliteStore
from features.online.url import without_secrets

LEAST_TIMEOUT_S = 0.05  # a first read opens a connection too


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
    if over_network(wanted):
        return _redis(wanted, settings)
    raise UsageError(f"`online_store` is {without_secrets(wanted)!r}: it must be sqlite, memory or a redis:// URL")


def open_replica(settings: Settings) -> OnlineStore | None:
    """The second replica to read from, if there is one.

    Raises:
        UsageError: it is no Redis, or the store itself is none.
    """
    wanted = settings.online_store_replica
    if not wanted:
        return None
    if not over_network(wanted) or not over_network(settings.online_store):
        raise UsageError("`online_store_replica` is a redis:// URL, beside an `online_store` that is one")
    return _redis(wanted, settings)


def over_network(store: str) -> bool:
    """Whether reads of this `online_store` wait for something: a socket."""
    return store.startswith(("redis://", "rediss://", "unix://"))


def _redis(url: str, settings: Settings) -> OnlineStore:
    from features.online.redis import RedisStore

    return RedisStore(url, timeout_s=max(settings.features_budget_ms / 1e3, LEAST_TIMEOUT_S))
