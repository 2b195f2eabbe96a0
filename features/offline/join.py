"""The point-in-time join: each row gets the value that was known at its moment, and none from its future."""

import pyarrow as pa

from features import duck


def as_of_join(rows: pa.Table, history: pa.Table, *, exact: bool = False) -> pa.Table:
    """DuckDB's ASOF join.

    Args:
        rows: entity (string), timestamp_us (int64), and any other columns.
        history: entity, timestamp_us, value: what the feature became, and when.
        exact: also take a value stamped at the row's own moment. Right for batch features, whose stamp says "from
            events before then"; wrong for event streams, where that value would contain the row's own event.

    Returns:
        The rows in their order with `value` and `value_timestamp_us`, both null where nothing was known.
    """
    with duck.connect(threads=2) as db:
        db.register("asked", rows.append_column("__row", pa.array(range(len(rows)), pa.int64())))
        db.register("history", history)
        return (
            db.sql(f"""
            SELECT a.*, h.value, h.timestamp_us AS value_timestamp_us
            FROM asked a ASOF LEFT JOIN history h
            ON a.entity = h.entity AND a.timestamp_us {">=" if exact else ">"} h.timestamp_us
            ORDER BY a.__row""")  # noqa: S608
            .to_arrow_table()
            .drop_columns(["__row"])
        )
