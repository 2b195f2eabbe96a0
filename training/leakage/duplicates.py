"""The same thing on both sides of the cut: rows written twice with a shift in time, and items under two ids."""

from dataclasses import dataclass

import duckdb

from contracts.checklist import TRAIN
from contracts.evidence import Check, Verdict
from features import duck
from training.leakage.across import Across

MOST_COPIES = 0.01  # of the window's rows, with one and the same shift
MOST_TWINS, DOUBT_TWINS = 0.05, 0.01  # of the window's new pairs
LEAST_COPIES = 20
MOST_GAPS = 5  # that are looked at
MOST_ALIKE = 50  # rows on one side that differ in time alone
SAME = ("title", "category", "creator_id", "price")
DAY_US, HOUR_US, MINUTE_US, SECOND_US = 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000
STEPS_US = (DAY_US, HOUR_US, 30 * MINUTE_US, 15 * MINUTE_US, 5 * MINUTE_US, MINUTE_US, SECOND_US, 1_000)
COARSE_US = HOUR_US  # from there on who comes back after a week does so at the same distance
ON_STEP = 0.95  # of the copies: a few odd rows do not make a log fine
TIMES = 2  # as many as at the distances beside it
WHOLE = 0.9  # of a day's rows are written twice where the day was; no habit is as strong

ALIKE = "user_id, item_id, event, value"
WORSE: tuple[Verdict, ...] = ("pass", "inconclusive", "fail")


@dataclass(frozen=True, slots=True)
class Copies:
    """Rows of the window that repeat one before the cut at one distance, `gap_us`. step_us: on which their timestamps
    lie. beside: as many at a distance one or two steps away, the most. whole: of the copies, those in days of the
    window into which all that lies at the distance before was repeated."""

    n: int = 0
    gap_us: int = 0
    step_us: int = 1
    beside: int = 0
    whole: int = 0


def shifted_copies(rows: Across) -> list[Copies]:
    """The most frequent distances, those first that have most.

    An export that wrote a day twice, or in two time zones, gives many at one distance; people do not, unless the log
    has dates only: then a week is one distance for everybody who comes back after it.
    """
    with duck.connect() as db:
        for name, side in (("before", rows.before), ("after", rows.after)):
            db.register(f"rows_{name}", side)
            db.execute(
                f"CREATE TEMP TABLE {name} AS SELECT DISTINCT user_id, item_id, event,"  # noqa: S608
                f" coalesce(CAST(value AS VARCHAR), '') AS value, at_us FROM rows_{name}"
            )
        db.execute(
            "CREATE TEMP TABLE gaps AS SELECT a.at_us - b.at_us AS gap, count(*) AS n"  # noqa: S608
            f" FROM ({_nearest('after', 'ASC')}) a JOIN ({_nearest('before', 'DESC')}) b USING ({ALIKE}) GROUP BY gap"
        )
        top = db.execute("SELECT gap, n FROM gaps ORDER BY n DESC, gap LIMIT ?", [MOST_GAPS]).fetchall()
        many = [(gap, n) for gap, n in top if _many(n, rows.after.num_rows)]
        return [_copies(db, gap, n) for gap, n in many] or [Copies(n, gap) for gap, n in top[:1]]


def _nearest(side: str, order: str) -> str:
    """Of what somebody did with one thing over and over, the rows next to the cut: the distances of n rows to n others
    are n²."""
    return (
        f"SELECT * FROM {side} QUALIFY row_number() OVER (PARTITION BY {ALIKE} ORDER BY at_us {order}) <= {MOST_ALIKE}"  # noqa: S608
    )


def _many(copies: int, window: int) -> bool:
    return copies >= LEAST_COPIES and copies > MOST_COPIES * window


def _copies(db: duckdb.DuckDBPyConnection, gap: int, n: int) -> Copies:
    db.execute(  # what lies at the distance before the window, and whether it is there again
        "CREATE OR REPLACE TEMP TABLE moved AS SELECT at_us, copied"  # noqa: S608
        " FROM (SELECT * REPLACE (at_us + $gap AS at_us) FROM before)"
        f" LEFT JOIN (SELECT *, true AS copied FROM after) USING ({ALIKE}, at_us)"
        " WHERE at_us BETWEEN (SELECT min(at_us) FROM after) AND (SELECT max(at_us) FROM after)",
        {"gap": gap},
    )
    step = next((step for step in STEPS_US if _on_step(db, step)), 1)
    (beside,) = db.execute(
        "SELECT coalesce(max(n), 0) FROM gaps WHERE abs(gap - $gap) IN ($step, 2 * $step)",
        {"gap": gap, "step": step},
    ).fetchone() or (0,)
    (whole,) = db.execute(
        "SELECT coalesce(sum(copied), 0) FROM (SELECT count(*) AS n, count(copied) AS copied FROM moved"
        " GROUP BY at_us // $day) WHERE n >= $least AND copied >= $whole * n",
        {"day": DAY_US, "least": LEAST_COPIES, "whole": WHOLE},
    ).fetchone() or (0,)
    return Copies(n, gap, step, int(beside), int(whole))


def _on_step(db: duckdb.DuckDBPyConnection, step_us: int) -> bool:
    """Do nearly all copies have one remainder?"""
    found = db.execute(
        "SELECT max(n) >= $share * sum(n) FROM (SELECT count(*) AS n FROM moved WHERE copied GROUP BY at_us % $step)",
        {"share": ON_STEP, "step": step_us},
    ).fetchone()
    return bool(found and found[0])


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
    found = shifted_copies(rows) or [Copies()]
    copies = max(found, key=lambda one: WORSE.index(_judged(one, window)[0]))
    verdict, told = _judged(copies, window)
    twins, pairs = met_twins(rows)
    twin_share = twins / max(pairs, 1)
    said = [told]
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
        figures={
            "copied_share": copies.n / window,
            "copied_beside_share": copies.beside / window,
            "copied_days_share": copies.whole / window,
            "twin_share": twin_share,
        },
        command=TRAIN,
    )


def _judged(copies: Copies, window: int) -> tuple[Verdict, str]:
    """window: its rows."""
    if not _many(copies.n, window):
        return "pass", f"at most {copies.n} of {window} rows of the window repeat an earlier one at one distance"
    told = (
        f"{copies.n} rows of the window repeat rows from {copies.gap_us / HOUR_US:.3f} hours before each"
        f" ({copies.n / window:.1%})"
    )
    if _many(copies.whole, window):
        return "fail", f"{told}, among them whole days"
    if copies.n < TIMES * copies.beside:
        return "pass", f"{told}, and {copies.beside} from beside it: a habit"
    if copies.step_us >= COARSE_US:  # a habit of weeks may have nothing beside it
        return "inconclusive", f"{told}: their timestamps are whole hours or days, which a habit repeats as well"
    return "fail", told
