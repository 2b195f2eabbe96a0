"""DuckDB with bounds: two threads, a memory limit, spilling to disk; its errors become ours."""

import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from contracts.errors import DataError
from features import duck

MEMORY_LIMIT = "1GB"
BATCH_ROWS = 1 << 17


@contextmanager
def connect(what: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A fresh in-memory database; what does not fit spills to a temporary folder that is removed at the end.

    Raises:
        DataError: whatever DuckDB could not do, with `what` in front.
    """
    spill = tempfile.mkdtemp(prefix="streamrec-duckdb-")
    connection = duck.connect(memory_limit=MEMORY_LIMIT, threads=2, temp_directory=spill)
    try:
        yield connection
    except duckdb.Error as error:
        raise DataError(f"{what}: {str(error).splitlines()[0]}") from error
    finally:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)


def parquet(path: Path) -> str:
    """SQL that reads a Parquet file, or a folder of them in the order of their names; `*` and `[` are no patterns.

    A folder named `day=3` adds no column: columns are those in the files.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    return f"read_parquet([{', '.join(text(glob.escape(str(file))) for file in files)}], hive_partitioning = false)"


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """An SQL string."""
    return "'" + value.replace("'", "''") + "'"


def write_query(connection: duckdb.DuckDBPyConnection, sql: str, path: Path) -> int:
    """Stream a query's rows to a Parquet file; returns how many."""
    reader = connection.sql(sql).to_arrow_reader(BATCH_ROWS)
    rows = 0
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += len(batch)
    return rows
