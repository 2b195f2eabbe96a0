"""Labelled rows of what one ranker showed, for whoever judges outcomes (monitoring/drift/service)."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from contracts.settings import Settings
from contracts.user_keys import UserKeys
from features.labels import LabelRule
from monitoring.labels.joined import Joined
from monitoring.labels.meaning import rule_of_bento

COLUMNS = ("user_id", "label", "score", "position", "country", "device", "category")


def label_source(settings: Settings, now_us: int, rule: LabelRule | None = None) -> Callable[[int, int, str], pa.Table]:
    """(since_us, until_us, ranker) → `COLUMNS` of the items that this ranker showed; label null: not known yet.

    rule: what counts; default: what the latest built Bento learned. ranker: as the exposure names it; "" for all.

    Raises (when called):
        NotFound, DataError: no Bento says what counts. Unreachable: the event log is away.
    """
    keys = UserKeys.of(settings.user_keys)

    def rows(since_us: int, until_us: int, ranker: str) -> pa.Table:
        joined = Joined.open(
            settings.home,
            rule or rule_of_bento(None, settings.home),
            since_us,
            until_us,
            now_us=now_us,
            event_log=settings.event_log,
            keys=keys,
        )
        found = []
        for table in joined.batches():
            theirs = table.filter(pc.equal(table["ranking"], ranker)) if ranker else table
            found.append(theirs.select(list(COLUMNS)))
        empty = pa.table({name: pa.array([], pa.string() if name in _WORDS else pa.float64()) for name in COLUMNS})
        return pa.concat_tables(found, promote_options="permissive") if found else empty

    return rows


_WORDS = ("user_id", "country", "device", "category")
