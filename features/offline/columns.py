"""A query's answer as NumPy columns, filled batch by batch: a log of many rows is never held twice."""

from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

BATCH_ROWS = 1 << 17


def fetch(relation: duckdb.DuckDBPyRelation, rows: int, dtypes: Mapping[str, DTypeLike]) -> dict[str, NDArray[Any]]:
    """name → [rows]. rows: how many the relation has, in its order; none of the named columns holds a null."""
    out = {name: np.empty(rows, dtype) for name, dtype in dtypes.items()}
    at = 0
    reader: pa.RecordBatchReader = relation.to_arrow_reader(BATCH_ROWS)
    for batch in reader:
        for name, column in out.items():
            column[at : at + len(batch)] = batch.column(name).to_numpy(zero_copy_only=False)
        at += len(batch)
    return out
