"""Do events count as wishes for serving as they did in training? Event by event, by both definitions.

`features.labels.LabelRule` is the one definition; what can differ is the configuration that it reads: that of the data
that a model learned from, and that which its Bento carries and the stream is read by.
"""

from collections.abc import Sequence

import pyarrow as pa

from contracts.dataset import DatasetConfig
from features.labels import LabelRule
from monitoring.skew.rows import Difference, RowSkew, summed_up

LABEL = "label"


def compare_labels(events: pa.Table, training: DatasetConfig, serving: DatasetConfig, *, limit: float) -> RowSkew:
    """events: `event_id`, `user_id`, `item_id`, `event`, `timestamp_us`, `value`, as the event log has them."""
    learned, online = LabelRule.of(training), LabelRule.of(serving)
    meanings = {
        (event, value): (learned.weight(event, value), online.weight(event, value))
        for event, value in set(zip(events["event"].to_pylist(), events["value"].to_pylist(), strict=True))
    }
    found = []
    names = ("event_id", "item_id", "event", "timestamp_us", "value")
    for event_id, item_id, event, at, value in zip(*(events[n].to_pylist() for n in names), strict=True):
        in_training, served = meanings[event, value]
        if in_training != served:
            why = f"`{event}`" + ("" if value is None else f" of {value:g}")
            why += f" weighs {served:g} where it is served and {in_training:g} where it was learned"
            found.append(Difference(event_id, item_id, at, served, in_training, "label", why))
    return summed_up(LABEL, events.num_rows, found, 0, limit)


def compare_joined(joined: Sequence[tuple[str, str, int]], truth: Sequence[int], *, limit: float) -> RowSkew:
    """Labels that were joined to rows, against those of the one definition.

    joined: (request id, item id, label) of each row; truth: what the definition gives for it.
    """
    found = [
        Difference(request, item, 0, label, true, "label", f"labelled {label}, by the definition {true}")
        for (request, item, label), true in zip(joined, truth, strict=True)
        if label != true
    ]
    return summed_up(LABEL, len(joined), found, 0, limit)
