"""A feature's history, computed again from the log by the code that serves it: one Parquet file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import UsageError
from features.definitions import FeatureDefinition
from features.offline import items, users
from features.offline.log import Log, open_log
from features.online.base import Interaction
from features.registry import REGISTRY
from features.resolve import LAST_10
from features.streaming import push

DAY_US = items.DAY_US
_MOMENTS_AT_ONCE = 8
_ROWS_AT_ONCE = 100_000
_VALUE: dict[str, pa.DataType] = {
    "float": pa.float64(),
    "weights": pa.map_(pa.string(), pa.float64()),
    "interactions": pa.list_(
        pa.struct([("item_id", pa.string()), ("event", pa.string()), ("timestamp_us", pa.int64())])
    ),
}


@dataclass(frozen=True, slots=True)
class Backfilled:
    feature: str
    rows: int
    moments: int  # 0: one row per event
    since_us: int
    until_us: int
    out: Path


def backfill(
    name: str,
    folder: Path,
    out: Path,
    *,
    since_us: int | None = None,
    until_us: int | None = None,
    every_us: int = DAY_US,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Backfilled:
    """Write `entity, timestamp_us, value` to `out`, ready for `as_of_join`.

    Batch features and `item_trending_score`: the values as of each moment of the range. The last interactions: the
    value after each event, folded as the consumer folds it.

    Args:
        since_us, until_us: half-open range; default: the whole log. Moments are multiples of `every_us`.

    Raises:
        NotFound: no such feature.
        UsageError: it is not computed from the log (embeddings, on-demand features), or the range is empty.
        DataError: the folder is no data set.
    """
    definition = REGISTRY[name]
    if definition.dtype == "embedding":
        raise UsageError(
            f"{name} comes from a model, not from the log", next_command=f"streamrec train --data {folder}"
        )
    if definition.kind == "on_demand":
        raise UsageError(f"{name} is computed at each request: it has no history")
    with open_log(folder) as log:
        first, last = log.span_us()
        since, until = first if since_us is None else since_us, last + every_us if until_us is None else until_us
        if until <= since:
            raise UsageError(f"the range for {name} is empty: --since is not before --until")
        moments = list(range(-(-since // every_us) * every_us, until, every_us))
        schema = pa.schema(
            [("entity", pa.string()), ("timestamp_us", pa.int64()), ("value", _VALUE[definition.dtype])],
            metadata={"feature": name, "feature_hash": REGISTRY.hash},
        )
        if name == LAST_10:
            tables, count = _interactions(log, since, until, schema), 0
        elif definition.entity == "user":
            tables, count = _users(log, definition, moments, schema, progress), len(moments)
        else:
            tables, count = _items(log, definition, moments, schema, progress), len(moments)
        return Backfilled(name, _write(tables, schema, out), count, since, until, out)


def _write(tables: Iterator[pa.Table], schema: pa.Schema, out: Path) -> int:
    """Under a temporary name, then renamed: a killed run leaves nothing that looks whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    rows = 0
    try:
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
                rows += len(table)
        part.rename(out)
    finally:
        part.unlink(missing_ok=True)
    return rows


def _users(
    log: Log,
    definition: FeatureDefinition,
    moments: Sequence[int],
    schema: pa.Schema,
    progress: Callable[[int, int], None],
) -> Iterator[pa.Table]:
    firsts = log.db.execute("SELECT user_id, min(at_us) FROM log GROUP BY user_id ORDER BY user_id").fetchall()
    for at in range(0, len(moments), _MOMENTS_AT_ONCE):
        pairs = [(user, t) for t in moments[at : at + _MOMENTS_AT_ONCE] for user, first in firsts if first < t]
        if pairs:
            ids, times = [p[0] for p in pairs], [p[1] for p in pairs]
            values = [row[definition.name] for row in users.batch_features(log, ids, times)]
            if definition.dtype == "weights":
                values = [list(v.items()) for v in values]
            yield pa.table([ids, times, pa.array(values, schema.field("value").type)], schema=schema)
        progress(min(at + _MOMENTS_AT_ONCE, len(moments)), len(moments))


def _items(
    log: Log,
    definition: FeatureDefinition,
    moments: Sequence[int],
    schema: pa.Schema,
    progress: Callable[[int, int], None],
) -> Iterator[pa.Table]:
    ids = log.item_ids()
    if not moments:
        return
    events = items.read_events(log, ids, moments[-1])
    if definition.name not in items.measurable(events):
        raise UsageError(f"{log.folder} has no events that {definition.name} could be computed from")
    for done, (moment, columns) in enumerate(items.walk(events, moments), start=1):
        values = pa.array(columns[definition.name], pa.float64())
        yield pa.table([pa.array(ids, pa.string()), pa.array([moment] * len(ids), pa.int64()), values], schema=schema)
        progress(done, len(moments))


def _interactions(log: Log, since: int, until: int, schema: pa.Schema) -> Iterator[pa.Table]:
    last: dict[str, tuple[Interaction, ...]] = {}
    cursor = log.db.execute(
        """SELECT user_id, item_id, event, at_us FROM log
           WHERE at_us < ? AND event NOT IN (SELECT unnest(?)) ORDER BY at_us, item_id, event""",
        [until, sorted(log.impressions)],
    )
    while found := cursor.fetchmany(_ROWS_AT_ONCE):
        rows = []
        for user_id, item_id, event, at in found:
            last[user_id] = push(last.get(user_id, ()), Interaction(item_id, event, at))
            if at >= since:
                value = [(i.item_id, i.event, i.timestamp_us) for i in last[user_id]]
                rows.append((user_id, at, value))
        if rows:
            yield pa.table(
                [pa.array(column, f.type) for column, f in zip(zip(*rows, strict=True), schema, strict=True)],
                schema=schema,
            )
