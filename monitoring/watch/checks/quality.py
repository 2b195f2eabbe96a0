"""What people did with what one Bento showed them, slice by slice: `monitoring/slices`. Clicks over time are the drift
check's (`drift.concept`)."""

from contracts.errors import NotFound
from monitoring.drift.service.labelled import own_labels
from monitoring.signals import Signal
from monitoring.slices import slices
from monitoring.watch.checks.base import Asked
from registry.bento_store import stored_bento
from registry.lineage import pinned_uris

HOUR_US = 3_600_000_000


def check(asked: Asked) -> list[Signal]:
    try:
        bento = stored_bento(asked.bento or None, asked.settings.home)
        model = pinned_uris(bento)["ranking"].removeprefix("models:/")
        labels = own_labels(asked.settings, bento.tag, now_us=asked.now_us)
    except NotFound as error:
        return [Signal("slice.error", asked.bento, "inconclusive", asked.now_us, cause=error.message)]
    since_us = asked.now_us - int(asked.schema.windows.drift_hours * HOUR_US)
    ranker = bento.models["ranking"][0].rpartition(":")[2]
    return slices(labels(since_us, asked.now_us, ranker), model=model).signals(asked.now_us)
