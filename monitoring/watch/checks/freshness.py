"""How old the model and the batch lists are, and what became of the last training."""

import asyncio

import pyarrow as pa
import pyarrow.compute as pc

from bentos.telemetry.event_log import read_events
from bentos.telemetry.exposures import read_exposures
from contracts.errors import StreamRecError
from features.online.open import open_store
from monitoring.signals import Signal
from monitoring.watch.ages import batch_lists_signal, model_signal, training_signal
from monitoring.watch.checks.base import Asked
from registry.bento_store import stored_bento
from registry.lineage import pinned_uris
from registry.models import Registry

HOUR_US = 3_600_000_000
USERS = 50  # asked for their list; it is replaced for all at once


def check(asked: Asked) -> list[Signal]:
    registry = Registry.open(asked.settings)
    last = registry.last_run()
    found = [
        training_signal((last.run_id, last.status, last.started_us) if last else None, asked.runs, asked.now_us),
        batch_lists_signal(*_lists(asked), asked.schema.levels, asked.now_us),
    ]
    if asked.bento:
        found.append(
            model_signal(asked.bento, _trained_us(asked.bento, registry, asked), asked.schema.levels, asked.now_us)
        )
    return found


def _trained_us(bento: str, registry: Registry, asked: Asked) -> int | str:
    """When its ranker was registered; words where that is not known."""
    try:
        uri = pinned_uris(stored_bento(bento, asked.settings.home))["ranking"]
        return registry.resolve(uri).created_us
    except StreamRecError as error:
        return error.message


def _lists(asked: Asked) -> tuple[int | None, int | None]:
    """(moment of the published lists, now), both on the data set's clock, as users who came lately have them."""
    seen = read_exposures(asked.settings.home, asked.now_us - 24 * HOUR_US, asked.now_us)
    if not len(seen):
        return None, None
    newest = seen.select(["user_id", "clock_us"]).take(
        pc.sort_indices(seen, sort_keys=[("timestamp_us", "descending")])[: 20 * USERS]
    )
    users = list(dict.fromkeys(_named(newest, asked)))[:USERS]
    store = open_store(asked.settings)

    async def of_users() -> int | None:
        for user in users:
            if (known := (await store.read_user(user)).precomputed) is not None:
                return known.feature_time_us
        return None

    try:
        return asyncio.run(of_users()), int(newest["clock_us"][0].as_py())
    finally:
        store.close()


def _named(newest: pa.Table, asked: Asked) -> list[str]:
    """Users as the online store calls them: exposures may hide them, the event log never does."""
    if asked.settings.user_keys is None:
        users: list[str] = newest["user_id"].to_pylist()
        return users
    since_us = asked.now_us - 24 * HOUR_US
    sent = read_events(asked.settings.home, since_us, asked.now_us, event_log=asked.settings.event_log)
    active: list[str] = sent["user_id"].to_pylist()[::-1]
    return active
