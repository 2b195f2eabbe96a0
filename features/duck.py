"""DuckDB as everybody here opens it."""

from typing import Any

import duckdb


def connect(**config: Any) -> duckdb.DuckDBPyConnection:
    """A fresh in-memory database in UTC that prints nothing: by default a query of over two seconds draws a progress
    bar on stdout, where a command's JSON goes. It fetches no extension.
    """
    db = duckdb.connect(":memory:", config={"autoinstall_known_extensions": False, **config})
    db.execute("SET enable_progress_bar = false")
    db.execute("SET TimeZone = 'UTC'")
    return db
