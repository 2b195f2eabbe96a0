"""Reading a data set: columns in, Arrow tables out, never a loop over rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from contracts.dataset import INTERACTIONS, ITEMS, USERS
from contracts.errors import DataError, NotFound

TIMESTAMP = pa.timestamp("us", tz="UTC")


def interactions(
    folder: Path,
    columns: Sequence[str] | None = None,
    since_us: int | None = None,
    until_us: int | None = None,
) -> pa.Table:
    """Rows with `since_us <= timestamp < until_us` in file order (a snapshot: by time); `columns`: None for all.

    Raises:
        NotFound: no such file. DataError: a column that is not there, or a file that cannot be read.
    """
    condition: ds.Expression | None = None
    if since_us is not None:
        condition = pc.field("timestamp") >= pa.scalar(since_us, TIMESTAMP)
    if until_us is not None:
        before = pc.field("timestamp") < pa.scalar(until_us, TIMESTAMP)
        condition = before if condition is None else condition & before
    return _scan(folder / INTERACTIONS, columns, condition)


def batches(folder: Path, until_us: int) -> Iterator[pa.RecordBatch]:
    """`interactions` with all columns, a batch at a time."""
    source = ds.dataset(folder / INTERACTIONS, format="parquet")
    yield from source.to_batches(filter=pc.field("timestamp") < pa.scalar(until_us, TIMESTAMP), batch_readahead=2)


def items(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The catalogue. Row i is item i."""
    return _scan(folder / ITEMS, columns, None)


def users(folder: Path, columns: Sequence[str] | None = None) -> pa.Table | None:
    """Users with attributes; None when the data set has no such file."""
    return _scan(folder / USERS, columns, None) if (folder / USERS).exists() else None


def log_end_us(folder: Path) -> int:
    """The last timestamp of the log, µs; one column is read, a batch at a time.

    Raises:
        DataError: the log has no rows.
    """
    path = folder / INTERACTIONS
    schema(path)  # says clearly when there is nothing to read
    last: int | None = None
    for batch in ds.dataset(path, format="parquet").to_batches(columns=["timestamp"]):
        value = pc.max(batch.column(0).cast(TIMESTAMP)).cast(pa.int64()).as_py()
        if value is not None and (last is None or value > last):
            last = value
    if last is None:
        raise DataError(f"{path} has no rows")
    return last


def _scan(path: Path, columns: Sequence[str] | None, condition: ds.Expression | None) -> pa.Table:
    if not path.exists():
        raise NotFound(f"{path} is not there", next_command=f"streamrec data validate {path.parent}")
    try:
        return pq.read_table(path, columns=None if columns is None else list(columns), filters=condition)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", next_command=f"streamrec data validate {path.parent}"
        ) from error


def schema(path: Path) -> pa.Schema:
    """The columns of one of a data set's tables, be it a file or a snapshot's folder of files.

    Raises:
        NotFound: no such file. DataError: it cannot be read.
    """
    if not path.exists():
        raise NotFound(f"{path} is not there", next_command=f"streamrec data validate {path.parent}")
    try:
        return ds.dataset(path, format="parquet").schema
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", next_command=f"streamrec data validate {path.parent}"
        ) from error
