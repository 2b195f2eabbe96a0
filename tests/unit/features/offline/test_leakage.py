"""A leak is planted three ways; each must be caught, and honest features must not be blamed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from features.definitions import Entity
from features.offline.join import as_of_join
from features.offline.leakage import check_point_in_time, item_features, same, user_features
from features.offline.log import Log, open_log

DAY = 86_400_000_000


def rows_of(folder: Path, entity: str, count: int = 30) -> list[tuple[str, int]]:
    """Rows at the moments of events: where training rows are, and where a leak would be."""
    with open_log(folder) as log:
        found = log.db.execute(f"SELECT {entity}_id, at_us FROM log ORDER BY at_us, user_id, item_id").fetchall()  # noqa: S608
    random = np.random.default_rng(1)
    return [found[i] for i in sorted(random.choice(len(found), count, replace=False))]


def values(folder: Path, entity: str, rows: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    compute = user_features if entity == "user" else item_features
    with open_log(folder) as log:
        return compute(log, [i for i, _ in rows], [t for _, t in rows])


@pytest.mark.parametrize("entity", ["user", "item"])
def test_the_registry_s_own_features_use_nothing_of_the_future(world: Path, entity: Entity) -> None:
    rows = rows_of(world, entity)
    assert check_point_in_time(world, entity, rows, values(world, entity, rows), sample=30) == []


def test_a_join_that_takes_the_row_s_own_event_is_caught(world: Path) -> None:
    """The planted leak: `<=` where `<` belongs, on a history of one row per event."""
    with open_log(world) as log:
        history = log.db.sql(
            """SELECT item_id AS entity, at_us AS timestamp_us,
                      sum(weight) OVER (PARTITION BY item_id ORDER BY at_us) AS value
               FROM log WHERE weight > 0"""
        ).to_arrow_table()
        positives = log.db.execute("SELECT item_id, at_us FROM log WHERE weight > 0 ORDER BY at_us LIMIT 40").fetchall()
    rows = pa.table(
        {"entity": [i for i, _ in positives], "timestamp_us": pa.array([t for _, t in positives], pa.int64())}
    )

    def claimed(*, exact: bool) -> list[dict[str, Any]]:
        found = as_of_join(rows, history, exact=exact)["value"].to_pylist()
        return [{"item_pop_total": value or 0.0} for value in found]

    assert check_point_in_time(world, "item", positives, claimed(exact=False), sample=40) == []
    leaks = check_point_in_time(world, "item", positives, claimed(exact=True), sample=40)
    assert len(leaks) == 40
    assert {leak.feature for leak in leaks} == {"item_pop_total"}


def test_values_computed_from_the_whole_log_are_caught(world: Path) -> None:
    rows = rows_of(world, "user")
    last_moment = 25 * DAY
    claimed = values(world, "user", [(user, last_moment) for user, _ in rows])
    leaks = check_point_in_time(world, "user", rows, claimed, sample=10)
    assert {leak.feature for leak in leaks} >= {"user_positives_total", "user_last_10_interactions"}
    assert all((leak.entity_id, leak.timestamp_us) in rows for leak in leaks)


def test_a_computation_that_looks_ahead_is_caught(world: Path) -> None:
    def tomorrow_s_clicks(log: Log, ids: Sequence[str], moments: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {
                "clicks": log.db.execute(
                    "SELECT count(*) FROM log WHERE item_id = ? AND at_us < ?", [item, moment + DAY]
                ).fetchall()[0][0]
            }
            for item, moment in zip(ids, moments, strict=True)
        ]

    rows = rows_of(world, "item")
    with open_log(world) as log:
        claimed = tomorrow_s_clicks(log, [i for i, _ in rows], [t for _, t in rows])
    leaks = check_point_in_time(world, "item", rows, claimed, compute=tomorrow_s_clicks)
    assert len(leaks) > 20


def test_a_feature_that_nobody_can_recompute_counts_as_a_leak(world: Path) -> None:
    rows = rows_of(world, "user", 1)
    leaks = check_point_in_time(world, "user", rows, [{"user_horoscope": 1.0}])
    assert [leak.feature for leak in leaks] == ["user_horoscope"]


def test_sameness_forgives_rounding_and_nothing_else() -> None:
    assert same(1.0, 1.0 + 1e-7)
    assert not same(1.0, 1.001)
    assert same({"a": 0.5}, {"a": 0.5000001})
    assert not same({"a": 0.5}, {"b": 0.5})
    assert same(np.ones(3), np.ones(3, np.float32))
    assert not same(np.ones(3), np.ones(4))
    assert not same(None, 0.0)
    assert not same(("a",), ("a", "b"))
