"""The offline join over the data that a model learned from and what the service has been told since."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contracts.dataset import DatasetConfig
from features.offline import items, users
from features.offline.log import Log, open_log
from features.streaming import click_event, positive_weight


@dataclass(slots=True)
class Offline:
    """Looks at one log. own: events that the service was told and the data set does not have."""

    log: Log
    item_ids: Sequence[str]

    def user(self, name: str, pairs: Sequence[tuple[str, int]]) -> list[Any]:
        """A batch feature of each (user, moment), None where the user had no past."""
        if not pairs:
            return []
        once = list(dict.fromkeys(pairs))
        rows = users.batch_features(self.log, [user for user, _ in once], [at for _, at in once])
        found = {pair: row.get(name) for pair, row in zip(once, rows, strict=True)}
        return [found[pair] for pair in pairs]

    def interactions(self, pairs: Sequence[tuple[str, int]]) -> list[list[str]]:
        """The last interactions of each (user, moment), as a context record keeps them."""
        if not pairs:
            return []
        found = users.last_interactions(self.log, [user for user, _ in pairs], [at for _, at in pairs])
        return [[f"{i.item_id}\t{i.event}\t{i.timestamp_us}" for i in some] for some in found]

    def item(self, pairs: Sequence[tuple[str, int]]) -> dict[str, list[Any]]:
        """Every feature that the log can measure, of each (item, moment). A pass over the log, and one step for each
        different moment."""
        moments = sorted({at for _, at in pairs})
        if not moments:
            return {}
        row_of = {item: row for row, item in enumerate(self.item_ids)}
        events = items.read_events(self.log, self.item_ids, moments[-1])
        wanted = {at: [n for n, pair in enumerate(pairs) if pair[1] == at] for at in moments}
        out: dict[str, list[Any]] = {name: [None] * len(pairs) for name in items.measurable(events)}
        for at, columns in items.walk(events, moments):
            for name, values in out.items():
                column = columns[name]
                for n in wanted[at]:
                    row = row_of.get(pairs[n][0])
                    values[n] = None if row is None else float(column[row])
        return out


class OncePerPair:
    """Item features of (item, moment) pairs: all of them are computed when the first is asked for."""

    def __init__(self, offline: Offline) -> None:
        self._offline = offline
        self._known: dict[tuple[str, int], dict[str, Any]] = {}

    def __call__(self, name: str, pairs: Sequence[tuple[str, int]]) -> list[Any]:
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        columns = self._offline.item(new)
        for at, pair in enumerate(new):
            self._known[pair] = {feature: values[at] for feature, values in columns.items()}
        return [self._known[pair].get(name) for pair in pairs]


@contextmanager
def open_offline(
    folder: Path, own: pa.Table, *, user_ids: Sequence[str] | None = None, item_ids: Sequence[str] | None = None
) -> Iterator[Offline]:
    """A data set with `own` events after it (columns of the event log); of some users or of some items alone.

    Own events from before the data set's end are taken to be in it.

    Raises:
        NotFound, DataError: no such data set, or it cannot be read.
    """
    with open_log(folder, threads=1) as whole:
        try:
            last = whole.span_us()[1]
        except Exception:  # an empty log has no end
            last = -(1 << 62)
    with open_log(folder, user_ids=user_ids, item_ids=item_ids, threads=1) as log:
        table = as_log(own, log.config, last, user_ids=user_ids, item_ids=item_ids)
        log.db.register("own_events", table)
        log.db.execute(f"CREATE OR REPLACE VIEW log AS FROM {log._source} UNION ALL BY NAME FROM own_events")
        yield Offline(log, list(item_ids or ()))


def users_of(folder: Path) -> list[str]:
    """Everybody whom the data set's log knows.

    Raises:
        NotFound, DataError: no such data set.
    """
    with open_log(folder, threads=1) as log:
        return [row[0] for row in log.db.execute("SELECT DISTINCT user_id FROM log").fetchall()]


def as_log(
    own: pa.Table,
    config: DatasetConfig,
    after_us: int,
    *,
    user_ids: Sequence[str] | None,
    item_ids: Sequence[str] | None,
) -> pa.Table:
    """Events of the event log later than `after_us`, as rows of the view `log` (features/offline/log.py)."""
    keep = np.asarray(own["timestamp_us"].to_numpy() > after_us)
    for column, chosen in (("user_id", user_ids), ("item_id", item_ids)):
        if chosen is not None:
            known = set(chosen)
            keep &= np.array([value in known for value in own[column].to_pylist()], bool)
    some = own.filter(pa.array(keep))
    event, value = some["event"].to_pylist(), some["value"].to_pylist()
    click = click_event(config)
    return pa.table(
        {
            "user_id": some["user_id"],
            "item_id": some["item_id"],
            "event": some["event"],
            "at_us": some["timestamp_us"],
            "value": some["value"],
            "weight": pa.array(
                [positive_weight(config, e, v) for e, v in zip(event, value, strict=True)], pa.float64()
            ),
            "impression": pa.array([e == config.impression_event for e in event], pa.bool_()),
            "click": pa.array([e == click for e in event], pa.bool_()),
            "completed": pa.array(
                [v if e == config.completion_event else None for e, v in zip(event, value, strict=True)], pa.float64()
            ),
        }
    )
