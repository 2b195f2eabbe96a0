"""What people did with what one Bento showed them: whether it is less than at first (`monitoring/outcomes`), and slice
by slice (`monitoring/slices`). That clicks moved at all is the drift check's to say (`drift.concept`)."""

from contracts.errors import NotFound
from monitoring.drift.service.anchored import anchored
from monitoring.drift.service.labelled import own_labels
from monitoring.outcomes import outcome_signals
from monitoring.signals import Signal
from monitoring.slices import slices
from monitoring.watch.checks.base import Asked
from registry.bento_store import stored_bento
from registry.lineage import pinned_uris

HOUR_US = 3_600_000_000


def check(asked: Asked) -> list[Signal]:
    now_us = asked.now_us
    try:
        bento = stored_bento(asked.bento or None, asked.settings.home)
        model = pinned_uris(bento)["ranking"].removeprefix("models:/")
        labels = own_labels(asked.settings, bento.tag, now_us=now_us)
    except NotFound as error:
        names = ("slice.error", "outcome.ctr", "outcome.calibration")
        return [Signal(name, asked.bento, "inconclusive", now_us, cause=error.message) for name in names]
    since_us = now_us - int(asked.schema.windows.drift_hours * HOUR_US)
    ranker = bento.models["ranking"][0].rpartition(":")[2]
    sides = anchored(asked.settings.home, labels, ranker, bento.tag, since_us, now_us)
    now = labels(since_us, now_us, ranker) if isinstance(sides, str) else sides[1]
    return [*slices(now, model=model).signals(now_us), *outcome_signals(sides, model, now_us)]
