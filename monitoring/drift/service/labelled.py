"""Rows of the home's own log with their labels, for what is judged on what people did."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bentos.telemetry.kinds import EXPOSURES
from contracts.errors import StreamRecError
from contracts.settings import Settings
from contracts.user_keys import UserKeys
from monitoring.frames.log_files import LogFiles
from monitoring.labels.joined import HOUR_US, LATE_H, Joined
from monitoring.labels.meaning import rule_of_bento
from registry.bento_store import stored_bento

SLICINGS = ("country", "device", "category")
COLUMNS = ("timestamp", "request_id", "user_id", "item_id", "position", "score", "label", "ranking", *SLICINGS)

# (since_us, until_us, ranker; "" of all) → rows of COLUMNS; `label` is null where it is not known yet.
LabelSource = Callable[[int, int, str], pa.Table]


def own_labels(settings: Settings, bento: str | None, *, now_us: int) -> LabelSource:
    """
    Raises:
        NotFound: there is no such Bento. DataError: its training did not keep what it learned as a positive.
    """
    rule = rule_of_bento(bento or None, settings.home)
    keys = UserKeys.of(settings.user_keys)

    def labels(since_us: int, until_us: int, ranker: str) -> pa.Table:
        joined = Joined.open(
            settings.home, rule, since_us, until_us, now_us=now_us, event_log=settings.event_log, keys=keys
        )
        tables = []
        for batch in joined.batches():
            mine = batch.select(list(COLUMNS))
            tables.append(mine.filter(pc.equal(mine["ranking"], ranker)) if ranker else mine)
        return pa.concat_tables(tables) if tables else EMPTY

    return labels


def known_until(bento: str | None, home: Path, now_us: int) -> int:
    """The moment before which the labels of all answers are known.

    Raises:
        NotFound, DataError: as `own_labels`.
    """
    return now_us - int((rule_of_bento(bento or None, home).longest_h + LATE_H) * HOUR_US)


EMPTY = pa.schema(
    [
        *((name, pa.string()) for name in ("request_id", "user_id", "item_id", "ranking", *SLICINGS)),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("position", pa.int32()),
        ("score", pa.float32()),
        ("label", pa.float64()),
    ]
).empty_table()


def first_served(home: Path, ranker: str, bento: str, until_us: int) -> int | None:
    """When the ranker first answered, as far as the log goes back; None: not before `until_us`."""
    try:
        since_us: int | None = int(stored_bento(bento or None, home).created.timestamp() * 1e6)
    except StreamRecError:
        since_us = None
    log = LogFiles.open(home, EXPOSURES, ("timestamp_us", "outcome", "versions"), since_us, until_us)
    for table in log.tables():
        mine = pc.equal(pc.struct_field(table["versions"].combine_chunks(), "ranking"), ranker)
        first = pc.min(table.filter(pc.and_(mine, pc.equal(table["outcome"], "ok")))["timestamp_us"]).as_py()
        if first is not None:
            return int(first)
    return None
