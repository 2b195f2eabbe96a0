"""The same thing on both sides of the cut: rows written twice with a shift in time, and items under two ids."""

from contracts.checklist import TRAIN
from contracts.evidence import Check, Verdict
from features import duck
from training.leakage.across import Across

MOST_COPIES = 0.01  # of the window's rows, with one and the same shift
MOST_TWINS, DOUBT_TWINS = 0.05, 0.01  # of the window's new pairs
LEAST_COPIES = 20
SAME = ("title", "category", "creator_id", "price")


def shifted_copies(rows: Across) -> tuple[int, int]:
    """(rows of the window that repeat one before the cut at the most frequent distance, that distance in µs).

    An export that wrote a day twice, or in two time zones, gives many at one distance; people do not.
    """
    with duck.connect() as db:
        db.register("before", rows.before)
        db.register("after", rows.after)
        found = db.execute(
            "SELECT a.at_us - b.at_us AS gap, count(DISTINCT (a.user_id, a.item_id, a.event, a.at_us)) AS n"
            " FROM after a JOIN before b ON a.user_id = b.user_id AND a.item_id = b.item_id AND a.event = b.event"
            " AND a.value IS NOT DISTINCT FROM b.value GROUP BY gap ORDER BY n DESC, gap LIMIT 1"
        ).fetchone()
    return (int(found[1]), int(found[0])) if found else (0, 0)


def met_twins(rows: Across) -> tuple[int, int]:
    """(new pairs of the window whose item the user had met under another id, new pairs).

    Twins are items alike in title, category, creator and price; an item without a title has none.
    """
    columns = [name for name in SAME if name in rows.items.column_names]
    if "title" not in columns:
        return 0, 0
    items = rows.items.select(["item_id", *columns])
    key = ", ".join(f"coalesce(CAST({name} AS VARCHAR), '')" for name in columns)
    with duck.connect() as db:
        db.register("items", items)
        db.register("before", rows.before.filter(rows.before["positive"]).select(["user_id", "item_id"]))
        db.register("after", rows.after.filter(rows.after["positive"]).select(["user_id", "item_id"]))
        db.execute(
            f"CREATE TEMP TABLE alike AS SELECT item_id, concat_ws(chr(31), {key}) AS what FROM items"  # noqa: S608
            " WHERE coalesce(title, '') <> ''"
        )
        db.execute("CREATE TEMP TABLE fresh AS SELECT DISTINCT user_id, item_id FROM after EXCEPT SELECT * FROM before")
        (pairs,) = db.execute("SELECT count(*) FROM fresh").fetchone() or (0,)
        (twins,) = db.execute(
            "SELECT count(DISTINCT (f.user_id, f.item_id)) FROM fresh f JOIN alike x USING (item_id)"
            " JOIN alike y ON x.what = y.what AND x.item_id <> y.item_id"
            " JOIN before b ON b.user_id = f.user_id AND b.item_id = y.item_id"
        ).fetchone() or (0,)
    return int(twins), int(pairs)


def no_duplicates(rows: Across) -> Check:
    window = rows.after.num_rows
    if not window or not rows.before.num_rows:
        return Check(name="leakage_duplicates", verdict="inconclusive", detail="no row on one side of the cut")
    copies, gap_us = shifted_copies(rows)
    twins, pairs = met_twins(rows)
    share, twin_share = copies / window, twins / max(pairs, 1)
    verdict: Verdict = "pass"
    said = []
    if copies >= LEAST_COPIES and share > MOST_COPIES:
        verdict = "fail"
        said.append(
            f"{copies} rows of the window repeat rows from {gap_us / 3.6e9:.3f} hours before each ({share:.1%})"
        )
    else:
        said.append(f"at most {copies} of {window} rows of the window repeat an earlier one at one distance")
    if pairs:
        said.append(f"{twins} of {pairs} new pairs are items that the user had met under another id ({twin_share:.1%})")
    if twin_share > MOST_TWINS:
        verdict = "fail"
    elif twin_share > DOUBT_TWINS and verdict == "pass":
        verdict = "inconclusive"
    return Check(
        name="leakage_duplicates",
        verdict=verdict,
        detail="; ".join(said),
        figures={"copied_share": share, "twin_share": twin_share},
        command=TRAIN,
    )
