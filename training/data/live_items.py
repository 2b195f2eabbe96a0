"""The items of a data set, with the live catalogue laid over them: what was put while the service ran is trained on."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from bentos.catalogue.store import CatalogueReader
from training.data.contract import Checked

_FACTS = ("category", "creator_id", "price", "is_promoted", "title")
_LIVE = pa.schema(
    [
        ("item_id", pa.string()),
        ("put", pa.bool_()),
        ("category", pa.string()),
        ("creator_id", pa.string()),
        ("price", pa.float64()),
        ("is_promoted", pa.bool_()),
        ("title", pa.string()),
        ("published_at", pa.timestamp("us", "UTC")),
        ("first_put_at", pa.timestamp("us", "UTC")),
        ("is_flagged", pa.bool_()),
    ]
)


def with_live_items(check: Checked, home: Path, shift_us: int) -> Checked:
    """The same check with other items; new ones are among `known_items` too.

    Columns that the data set does not have are left out. An item that was removed stays, flagged: its past teaches all
    the same. shift_us: what is added to times of the wall clock.

    Raises:
        Unreachable: the catalogue cannot be read.
    """
    reader = CatalogueReader(home)
    states = reader.news().states
    reader.close()
    if not states:
        return check
    rows = []
    for state in states:
        facts = state.facts
        published = facts.published_us if facts else None
        rows.append(
            {
                "item_id": state.item_id,
                "put": facts is not None,
                **({name: getattr(facts, name) for name in _FACTS} if facts else {}),
                "published_at": None if published is None else published + shift_us,
                "first_put_at": state.first_us + shift_us,
                "is_flagged": True if state.removed else state.flagged,
            }
        )
    db, old = check.connection, check.accepted["items"]
    db.execute(f"CREATE TEMP TABLE before_live AS {old}")
    db.register("live_rows", pa.Table.from_pylist(rows, schema=_LIVE))
    db.execute("CREATE TEMP TABLE live AS FROM live_rows")
    columns = [found[0] for found in db.sql("FROM before_live LIMIT 0").description]
    kept = [name for name in _FACTS if name in columns]
    over = [f"CASE WHEN l.put THEN l.{name} ELSE b.{name} END AS {name}" for name in kept]
    unknown = "l.put AND l.item_id NOT IN (SELECT item_id::VARCHAR FROM before_live)"
    db.execute(
        f"CREATE TEMP TABLE items_with_live AS SELECT b.* REPLACE ({', '.join(over)},"  # noqa: S608  names of our own
        " coalesce(l.published_at, b.published_at) AS published_at, coalesce(l.is_flagged, b.is_flagged) AS is_flagged)"
        " FROM before_live b LEFT JOIN live l ON b.item_id::VARCHAR = l.item_id"
        f" UNION ALL BY NAME SELECT l.item_id, {', '.join(kept)}, coalesce(l.published_at, l.first_put_at) AS"
        f" published_at, coalesce(l.is_flagged, false) AS is_flagged FROM live l WHERE {unknown}"
    )
    db.execute(f"INSERT INTO known_items SELECT l.item_id FROM live l WHERE {unknown}")  # noqa: S608
    return replace(check, accepted={**check.accepted, "items": "SELECT * FROM items_with_live"})
