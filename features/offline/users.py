"""User features at many (user, moment) rows, in DuckDB. Events at or after a row's moment never count for it.

Sums are ordered, so that the same past gives the same bits whatever else is in the log and however many threads run.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from contracts.serving import HISTORY_LENGTH
from features.offline.log import Log
from features.online.base import Interaction
from features.registry import PREFERENCE_HALF_LIFE_D, REGISTRY

DAY_US = 86_400_000_000
# Shares beyond these weigh next to nothing and would bloat the online rows.
MAX_CATEGORIES = 32
NO_SESSION = REGISTRY["user_avg_session_length_min"].default

_FLOATS = """
WITH past AS (
    SELECT a.row, a.t, l.at_us, l.weight FROM asked a JOIN log l ON l.user_id = a.user_id AND l.at_us < a.t
), times AS ( -- each once: among equal times two windows may disagree about the order
    SELECT DISTINCT row, at_us FROM past WHERE at_us >= t - $month
), recent AS (
    SELECT row, at_us, at_us - lag(at_us) OVER (PARTITION BY row ORDER BY at_us) AS gap FROM times
), numbered AS (
    -- not `count(*) FILTER (…) OVER`: DuckDB takes time in the square of a user's events for it
    SELECT row, at_us, sum(coalesce(gap > $gap, false)::INTEGER)
        OVER (PARTITION BY row ORDER BY at_us ROWS UNBOUNDED PRECEDING) AS session
    FROM recent
), lengths AS (
    SELECT row, session, max(at_us) - min(at_us) AS length FROM numbered GROUP BY row, session
), sessions AS (
    SELECT row, avg(length) / 60e6 AS minutes FROM lengths GROUP BY row
), counts AS (
    SELECT row,
        sum(weight ORDER BY at_us, weight) FILTER (at_us >= t - $month) AS positives_30d,
        sum(weight ORDER BY at_us, weight) AS positives_total,
        count(DISTINCT at_us // $day) FILTER (weight > 0 AND at_us >= t - $month) AS active_days_30d,
        (any_value(t) - min(at_us)) / $day::DOUBLE AS tenure_days
    FROM past GROUP BY row
)
SELECT row::INTEGER AS row, coalesce(minutes, $no_session) AS user_avg_session_length_min,
    coalesce(positives_30d, 0) AS user_positives_30d, positives_total AS user_positives_total,
    active_days_30d::DOUBLE AS user_active_days_30d, tenure_days AS user_tenure_days
FROM counts LEFT JOIN sessions USING (row) ORDER BY row
"""
_PREFERENCES = """
WITH wishes AS (
    SELECT a.row, i.category::VARCHAR AS category,
        sum(l.weight * pow(2, -(a.t - l.at_us) / $half_life) ORDER BY l.at_us, l.weight) AS weight
    FROM asked a JOIN log l ON l.user_id = a.user_id AND l.at_us < a.t
    JOIN items i ON i.item_id::VARCHAR = l.item_id
    WHERE l.weight > 0 AND i.category IS NOT NULL
    GROUP BY a.row, i.category
)
SELECT row::INTEGER AS row, category,
    weight / sum(weight) OVER (PARTITION BY row ORDER BY weight DESC, category
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS share
FROM wishes
QUALIFY row_number() OVER (PARTITION BY row ORDER BY weight DESC, category) <= $most
ORDER BY row, share DESC, category
"""
_LAST = """
SELECT DISTINCT row::INTEGER AS row, item_id, event, at_us
FROM (
    SELECT a.row, l.item_id, l.event, l.at_us,
        dense_rank() OVER (PARTITION BY a.row ORDER BY l.at_us DESC, l.item_id DESC, l.event DESC) AS place
    FROM asked a JOIN log l ON l.user_id = a.user_id AND l.at_us < a.t
    WHERE l.event NOT IN (SELECT unnest($impressions))
) WHERE place <= $length
ORDER BY row, at_us DESC, item_id DESC, event DESC
"""


def ask(log: Log, user_ids: Sequence[str], moments_us: Sequence[int]) -> None:
    """Make the rows the queries answer: `asked(row, user_id, t)`."""
    log.db.register(
        "asked",
        pa.table(
            {
                "row": pa.array(range(len(user_ids)), pa.int32()),
                "user_id": pa.array(user_ids, pa.string()),
                "t": pa.array(moments_us, pa.int64()),
            }
        ),
    )


def batch_features(log: Log, user_ids: Sequence[str], moments_us: Sequence[int]) -> list[dict[str, Any]]:
    """The batch features of each row, without embeddings. A user with no past has an empty dictionary.

    A user with any past has all of them, defaults included: what is left out would leave an older value in the store.
    """
    ask(log, user_ids, moments_us)
    out: list[dict[str, Any]] = [{} for _ in user_ids]
    gap = int(log.config.session_gap_min * 60e6)
    found = _answer(log, _FLOATS, {"gap": gap, "day": DAY_US, "month": 30 * DAY_US, "no_session": NO_SESSION})
    names = [n for n in found.column_names if n != "row"]
    columns = [found.column(n).to_pylist() for n in names]
    for row, *values in zip(found.column("row").to_pylist(), *columns, strict=True):
        out[row] = dict(zip(names, values, strict=True))
        out[row]["user_category_preferences"] = {}
    half_life = PREFERENCE_HALF_LIFE_D * DAY_US
    preferences = _answer(log, _PREFERENCES, {"half_life": half_life, "most": MAX_CATEGORIES})
    for row, category, share in zip(*(c.to_pylist() for c in preferences.columns), strict=True):
        out[row]["user_category_preferences"][category] = share
    return out


def last_interactions(log: Log, user_ids: Sequence[str], moments_us: Sequence[int]) -> list[tuple[Interaction, ...]]:
    """The last 10 of each row, newest first, in the order of `features.streaming.recency`."""
    ask(log, user_ids, moments_us)
    found = _answer(log, _LAST, {"impressions": sorted(log.impressions), "length": HISTORY_LENGTH})
    out: list[list[Interaction]] = [[] for _ in user_ids]
    for row, *fields in zip(*(c.to_pylist() for c in found.columns), strict=True):
        out[row].append(Interaction(*fields))
    return [tuple(rows) for rows in out]


def _answer(log: Log, sql: str, parameters: dict[str, Any]) -> pa.Table:
    return log.db.sql(sql, params=parameters).to_arrow_table()
