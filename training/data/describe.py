"""What is in a data set: counts, ranges and how events spread over users, by aggregates in bounded memory."""
# ruff: noqa: S608  SQL is made of our own names

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.data.contract import checked

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


def describe(folder: Path, *, now_us: int | None = None) -> dict[str, Any]:
    """One JSON-ready document about the accepted rows. Density: distinct positive (user, item) pairs / (users × items).

    Raises:
        NotFound, DataError: no data set, or a broken structure. Too many rejects are told, not raised.
    """
    with checked(folder, now_us=now_us) as check:
        connection, config = check.connection, check.config
        log = check.accepted["interactions"]
        connection.execute(
            f"CREATE TEMP TABLE per_user AS SELECT user_id, count(*) AS events FROM ({log}) GROUP BY user_id"
        )
        events, users = connection.execute(
            "SELECT coalesce(sum(events), 0)::BIGINT, count(*) FROM per_user"
        ).fetchall()[0]
        items = connection.execute("SELECT count(*) FROM known_items").fetchall()[0][0]
        first, last, seen = connection.execute(
            f"SELECT epoch_us(min(timestamp)), epoch_us(max(timestamp)), count(DISTINCT item_id) FROM ({log})"
        ).fetchall()[0]
        by_event = dict(
            connection.execute(f"SELECT event, count(*) FROM ({log}) GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
        )
        wish = " OR ".join(
            "(event = ?" + ("" if p.min_value is None else f" AND value >= {float(p.min_value)}") + ")"
            for p in config.positives
        )
        positive, pairs = connection.execute(
            f"SELECT count(*), count(DISTINCT (user_id, item_id)) FROM ({log}) WHERE {wish}",
            [p.event for p in config.positives],
        ).fetchall()[0]
        spread = connection.execute(f"SELECT quantile_disc(events, {list(QUANTILES)}) FROM per_user").fetchall()[0][0]
        categories = connection.execute(f"SELECT count(DISTINCT category) FROM ({check.accepted['items']})").fetchall()[
            0
        ][0]
        report = check.report
    return {
        "name": config.name,
        "licence": config.licence,
        "clock": config.clock,
        "events": events,
        "events_by_type": by_event,
        "positive_events": positive,
        "users": users,
        "users_with_attributes": report.rows.get("users", 0),
        "items": items,
        "items_in_log": seen,
        "categories": categories,
        "density": round(pairs / (users * items), 8) if users and items else 0.0,
        "first": _iso(first),
        "last": _iso(last),
        "days": round((last - first) / 86_400e6, 2) if events else 0.0,
        "reject_share": {table: round(report.share(table), 6) for table in report.rows},
        "events_per_user": {f"p{round(q * 100)}": n for q, n in zip(QUANTILES, spread or [0] * 8, strict=True)},
    }


def _iso(at_us: int | None) -> str | None:
    return None if at_us is None else datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="seconds")
