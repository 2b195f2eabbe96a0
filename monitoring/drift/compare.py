"""One window against its reference: every column, what was shown, and what came of it, judged together."""

from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import UsageError
from monitoring.drift.base import CannotJudge, Engine, Result, inconclusive
from monitoring.drift.columns import Kind, ids, pair
from monitoring.drift.correction import correct, overall
from monitoring.drift.frame import Frame
from monitoring.drift.outcomes import concept, outputs
from monitoring.drift.question import STANDARD, Question, ask_one, named
from monitoring.drift.registry import DETECTORS
from monitoring.drift.report import Feature, Report
from monitoring.drift.roles import ID, LOGGED, NO_FEATURES, TIME

LATE_US = 5 * 60 * 1_000_000  # a clock may be ahead by so much
LATE_SHARE = 0.01  # rows from the future above this: the window is not what it says


def compare(reference: Frame, current: Frame, *, engine: Engine, now_us: int, ask: Question = STANDARD) -> Report:
    """now_us: rows of the current window later than this (and five minutes) come from a clock that is wrong.

    Raises UsageError: a feature is asked for that neither side has.
    """
    notes = tuple(f"reference: {n}" for n in reference.notes) + tuple(f"current: {n}" for n in current.notes)
    before = reference.table if reference.table is not None else pa.table({})
    now = current.table if current.table is not None else pa.table({})
    why = _unfit(reference, current)
    if not why:
        now, why, late = _on_time(now, now_us)
        notes += (late,) if late else ()
    if not why and ask.unit:
        before, now = (_one_a_unit(side, ask.unit, ask.seed) for side in (before, now))
        notes += (f"one row of each {ask.unit}: {now.num_rows} rows against {before.num_rows}",)
    names = _names(before, now, ask)
    if why:
        return _blank(why, names, engine, ask, (before.num_rows, now.num_rows), notes)
    results: dict[tuple[str, str, str], Result] = {}
    kinds: dict[str, str] = {}
    known = now.filter(pc.fill_null(now[LOGGED], False)) if _is_bool(now, LOGGED) else now
    if len(known) < len(now):
        notes += (f"features: of the {len(known)} rows of {len(now)} whose values were logged",)
    for name in names:
        kinds[name], checks = _column(name, before, known, engine, ask)
        results |= {("features", name, test): result for test, result in checks.items()}
    if ask.features is None:
        results |= {("outputs", test, ""): r for test, r in outputs(before, now, engine, ask).items()}
        results |= {("concept", test, ""): r for test, r in concept(before, now, engine, ask).items()}
    judged = correct(results, ask.alpha)
    features = {
        name: Feature(
            kinds[name], {test: r for (part, n, test), r in judged.items() if (part, n) == ("features", name)}
        )
        for name in names
    }
    shown, came = ({n: r for (part, n, _), r in judged.items() if part == which} for which in ("outputs", "concept"))
    said = {**{name: feature.said for name, feature in features.items()}, **shown, **came}
    verdict = overall(said)
    if verdict == "inconclusive":
        gaps = [f"{name}: {r.why}" for name, r in said.items() if r.drift == "inconclusive" and r.weighs]
        why = "; ".join(gaps) or "there is nothing to compare"
    rows = (before.num_rows, now.num_rows)
    return Report(verdict, engine.name, ask.alpha, ask.seed, rows, features, shown, came, why, notes)


def _unfit(reference: Frame, current: Frame) -> str:
    for frame, side in ((reference, "reference"), (current, "current")):
        if frame.table is None:
            return f"{side}: {frame.why}"
    theirs, ours = reference.feature_hash, current.feature_hash
    if theirs and ours and theirs != ours:
        return f"the reference's features are of definitions {theirs[:12]}, the current's of {ours[:12]}"
    return ""


def _on_time(now: pa.Table, now_us: int) -> tuple[pa.Table, str, str]:
    """The rows whose time can be true; why none can be judged; a note on what was left out."""
    if TIME not in now.column_names or not pa.types.is_timestamp(now[TIME].type) or not now.num_rows:
        return now, "", ""
    at = now[TIME].cast(pa.timestamp("us", now[TIME].type.tz), safe=False).cast(pa.int64())
    late = pc.fill_null(pc.greater(at, now_us + LATE_US), False)
    count = int(pc.sum(late).as_py() or 0)
    if count > LATE_SHARE * now.num_rows:
        return now, f"clock skew: {count} of {now.num_rows} rows of the current window lie in the future", ""
    if count:
        return now.filter(pc.invert(late)), "", f"current: {count} rows from the future were left out"
    return now, "", ""


def _one_a_unit(table: pa.Table, unit: str, seed: int) -> pa.Table:
    """A row of each unit, drawn with the seed. Raises UsageError: no such column."""
    if unit not in table.column_names:
        raise UsageError(f"--unit: a side has no column {unit}")
    shuffled = np.random.default_rng(seed).permutation(table.num_rows)
    first = np.unique(np.asarray(ids(table[unit]))[shuffled], return_index=True)[1]
    return table.take(np.sort(shuffled[first]))


def _names(before: pa.Table, now: pa.Table, ask: Question) -> list[str]:
    there = dict.fromkeys([*before.column_names, *now.column_names])
    if ask.features is not None:
        unknown = [name for name in ask.features if name not in there]
        if unknown and there:
            raise UsageError(f"--features: neither side has {', '.join(unknown)}")
        return list(dict.fromkeys(ask.features))
    return [name for name in there if name not in NO_FEATURES and not name.startswith(("default.", "age_s."))]


def _blank(
    why: str, names: list[str], engine: Engine, ask: Question, rows: tuple[int, int], notes: tuple[str, ...]
) -> Report:
    features = {name: Feature("unknown", {"unjudged": inconclusive("unjudged", why)}) for name in names}
    return Report("inconclusive", engine.name, ask.alpha, ask.seed, rows, features, {}, {}, why, notes)


def _column(name: str, before: pa.Table, now: pa.Table, engine: Engine, ask: Question) -> tuple[str, dict[str, Result]]:
    """Kind and checks of one column. Its own test is the first."""
    try:
        for side, table in (("reference", before), ("current", now)):
            times = table.column_names.count(name)
            if times > 1:
                raise CannotJudge(f"the {side} has {times} columns of this name")
        if name not in before.column_names:
            raise CannotJudge("a new column: the reference does not have it", weighs=False)
        if name not in now.column_names:
            raise CannotJudge("dropped: the current window does not have it")
        found = pair(before[name], now[name])
    except CannotJudge as reason:
        return "unknown", {"unjudged": inconclusive("unjudged", str(reason), weighs=reason.weighs)}
    except (pa.ArrowException, ValueError, OverflowError) as error:
        return "unknown", {
            "unjudged": inconclusive("unjudged", f"its values cannot be read: {str(error).splitlines()[0]}")
        }
    x, y = found.reference, found.current
    if found.kind == "vector" and not name.startswith("user") and ID in before.column_names and ID in now.column_names:
        with suppress(CannotJudge):  # without ids that pair them, vectors are compared as clouds alone
            x, y = {**x, "keys": ids(before[ID])}, {**y, "keys": ids(now[ID])}
    checks = {}
    for test in _tests(found.kind, ask):
        if all(role in x and role in y for role in DETECTORS[test].takes):
            checks[test] = named(ask_one(test, (x, y), engine, ask), found.names)
    return found.kind, checks


def _tests(kind: Kind, ask: Question) -> tuple[str, ...]:
    return {
        "number": (ask.numbers, "missing", "out_of_range"),
        "category": ("chi_square", "missing", "unseen", "vanished"),
        "vector": (ask.vectors, "missing", "paired_cosine"),
        "sources": ("sources",),
    }[kind]


def _is_bool(table: pa.Table, name: str) -> bool:
    return name in table.column_names and pa.types.is_boolean(table[name].type)
