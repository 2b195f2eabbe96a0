"""A data set's log in DuckDB: one view `log` that the feature queries read.

Columns of `log`: user_id, item_id, event, at_us (int64 µs since 1970 UTC), value (float, null), weight (float, 0
where the event is no positive), impression, click (bool), completed (float, null).
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from contracts.dataset import INTERACTIONS, ITEMS, DatasetConfig
from contracts.errors import DataError, NotFound
from features import duck
from features.labels import LabelRule
from features.streaming import click_event, impression_events

# What a broken file causes; everything else is a mistake of ours and keeps its traceback.
_DATA_ERRORS = (
    duckdb.IOException,
    duckdb.InvalidInputException,
    duckdb.ConversionException,
    duckdb.BinderException,
    duckdb.OutOfMemoryException,
)


@dataclass(frozen=True, slots=True)
class Log:
    """An open data set. `db`: a DuckDB connection with the views `log` and `items`."""

    db: duckdb.DuckDBPyConnection
    config: DatasetConfig
    folder: Path
    _source: str = "whole"

    @property
    def impressions(self) -> frozenset[str]:
        return impression_events(self.config)

    def span_us(self) -> tuple[int, int]:
        """First and last moment of the log.

        Raises:
            DataError: the log is empty.
        """
        first, last = self.db.execute("SELECT min(at_us), max(at_us) FROM log").fetchall()[0]
        if first is None:
            raise DataError(f"{self.folder / INTERACTIONS} holds no events", next_command="streamrec data validate DIR")
        return int(first), int(last)

    def hide_from(self, moment_us: int) -> None:
        """From now on the view `log` ends right before `moment_us`."""
        self.db.execute(f"CREATE OR REPLACE VIEW log AS FROM {self._source} WHERE at_us < {int(moment_us)}")

    def item_ids(self) -> list[str]:
        """Ids of items.parquet, in its order, as strings."""
        rows = self.db.execute("SELECT item_id::VARCHAR AS item_id FROM items").fetchnumpy()["item_id"]
        return [str(i) for i in rows]


@contextmanager
def open_log(
    folder: Path,
    *,
    until_us: int | None = None,
    user_ids: Sequence[str] | None = None,
    item_ids: Sequence[str] | None = None,
    threads: int = 2,
    memory: str = "3GB",
) -> Iterator[Log]:
    """Open a data set for feature queries.

    Args:
        until_us: hide everything from then on (for leakage checks).
        user_ids, item_ids: only the events of these, kept in memory (for many small queries).

    Raises:
        NotFound: no such folder.
        DataError: a file or column is missing, the file is no Parquet, or its times have no zone.
    """
    if not folder.exists():
        raise NotFound(f"there is no data set at {folder}", next_command="streamrec data synth OUT")
    config = DatasetConfig.read(folder)
    for name in (INTERACTIONS, ITEMS):
        if not (folder / name).exists():
            raise DataError(f"{folder} has no {name}", next_command=f"streamrec data validate {folder}")
    with tempfile.TemporaryDirectory(prefix="streamrec-duckdb-") as spill:
        db = duck.connect(threads=threads, memory_limit=memory, temp_directory=spill)
        try:
            _views(db, config, folder)
            source = _keep(db, user_ids, item_ids)
            log = Log(db, config, folder, source)
            db.execute(f"CREATE VIEW log AS FROM {source}")
            if until_us is not None:
                log.hide_from(until_us)
            yield log
        except _DATA_ERRORS as error:
            raise DataError(
                f"{folder}: {str(error).splitlines()[0]}", next_command=f"streamrec data validate {folder}"
            ) from error
        finally:
            db.close()


def _views(db: duckdb.DuckDBPyConnection, config: DatasetConfig, folder: Path) -> None:
    path = _text(str((folder / INTERACTIONS).resolve()))
    columns = {row[0]: row[1] for row in db.execute(f"DESCRIBE SELECT * FROM read_parquet({path})").fetchall()}  # noqa: S608
    missing = {"user_id", "item_id", "timestamp", "event"} - columns.keys()
    if missing:
        raise DataError(
            f"{folder / INTERACTIONS} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(sorted(missing))}",
            next_command=f"streamrec data validate {folder}",
        )
    if columns["timestamp"].startswith("TIMESTAMP") and columns["timestamp"] != "TIMESTAMP WITH TIME ZONE":
        raise DataError(
            f"{folder / INTERACTIONS}: the times of column `timestamp` have no zone; store it as timestamp[us, UTC]",
            next_command=f"streamrec data validate {folder}",
        )
    # A folder that nobody imported may hold rows that `data validate` rejects: without an id or a time it is no event.
    value = "value::DOUBLE" if "value" in columns else "NULL::DOUBLE"
    completed = (
        f"CASE WHEN event = {_text(config.completion_event)} THEN {value} END" if config.completion_event else "NULL"
    )
    shown = f"event = {_text(config.impression_event)}" if config.impression_event else "false"
    db.execute(f"""
        CREATE VIEW whole AS
        SELECT user_id::VARCHAR AS user_id, item_id::VARCHAR AS item_id, event,
               epoch_us(timestamp::TIMESTAMPTZ) AS at_us,
               {value} AS value, {LabelRule.of(config).sql(value)} AS weight,
               {shown} AS impression, event = {_text(click_event(config))} AS click,
               ({completed})::DOUBLE AS completed
        FROM read_parquet({path})
        WHERE user_id IS NOT NULL AND item_id IS NOT NULL AND timestamp IS NOT NULL""")  # noqa: S608
    db.execute(f"CREATE VIEW items AS SELECT * FROM read_parquet({_text(str((folder / ITEMS).resolve()))})")  # noqa: S608


def _keep(db: duckdb.DuckDBPyConnection, user_ids: Sequence[str] | None, item_ids: Sequence[str] | None) -> str:
    """The relation that `log` shows: the files, or a table of the chosen users' or items' events."""
    source = "whole"
    for column, chosen in (("user_id", user_ids), ("item_id", item_ids)):
        if chosen is not None:
            db.register("chosen", pa.table({column: pa.array(chosen, pa.string())}))
            db.execute(f"CREATE TEMP TABLE few_{column} AS FROM {source} SEMI JOIN chosen USING ({column})")
            source = f"few_{column}"
    return source


def _text(value: Any) -> str:
    """A SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"
