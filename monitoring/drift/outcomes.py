"""What was shown and what came of it: slates, clicks by position, and whether the ranker is still right."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.drift.base import CannotJudge, Engine, Result, inconclusive
from monitoring.drift.columns import ids, pair
from monitoring.drift.question import Question, ask_one, named
from monitoring.drift.roles import ID, LABEL, POSITION, SCORE, SOURCES

BY_SLICE = ("slice_error", "slice_slope")
SLICES = ("country", "device", "segment", "category")


def outputs(before: pa.Table, now: pa.Table, engine: Engine, ask: Question) -> dict[str, Result]:
    """Of slates: popularity and coverage of their items, shares of the sources, clicks by position."""
    found: dict[str, Result] = {}
    shared = set(before.column_names) & set(now.column_names)
    if ID in shared:
        try:
            x, y = _codes(before[ID], now[ID])
        except CannotJudge as reason:
            return {test: inconclusive(test, str(reason)) for test in ("popularity", "coverage")}
        if len(np.unique(x)) < len(x):  # otherwise its rows are items, not what was shown
            sides = {"items": x}, {"items": y}
            found |= {test: ask_one(test, sides, engine, ask) for test in ("popularity", "coverage")}
    if SOURCES in shared:
        try:
            of = pair(before[SOURCES], now[SOURCES])
            if of.kind != "sources":
                raise CannotJudge("not a column of lists of words")
            found["sources"] = named(ask_one("sources", (of.reference, of.current), engine, ask), of.names)
        except CannotJudge as reason:
            found["sources"] = inconclusive("sources", str(reason), weighs=reason.weighs)
    if {POSITION, LABEL} <= shared:
        try:
            clicks = _clicks(before), _clicks(now)
        except CannotJudge as reason:
            found["ctr_by_position"] = inconclusive("ctr_by_position", str(reason))
        else:
            found["ctr_by_position"] = ask_one("ctr_by_position", clicks, engine, ask)
    return found


def concept(before: pa.Table, now: pa.Table, engine: Engine, ask: Question) -> dict[str, Result]:
    """Of scores and labels: clicks by score, calibration, and errors by each column of slices."""
    if not {SCORE, LABEL} <= set(before.column_names) & set(now.column_names):
        return {}
    try:
        x, y = _judged(before), _judged(now)
    except CannotJudge as reason:
        return {test: inconclusive(test, str(reason)) for test in ("ctr_by_score", "calibration")}
    found = {test: ask_one(test, (x, y), engine, ask) for test in ("ctr_by_score", "calibration")}
    for name in ask.slices if ask.slices is not None else SLICES:
        there = name in before.column_names, name in now.column_names
        if not any(there) and ask.slices is None:
            continue
        try:
            if not all(there):
                raise CannotJudge(f"{'the current' if there[0] else 'the reference'} does not have the column")
            of = pair(before[name], now[name])
            if of.kind != "category":
                raise CannotJudge("not a column of categories")
        except CannotJudge as reason:
            weighs = ask.slices is not None
            found |= {f"{test}:{name}": inconclusive(test, str(reason), weighs=weighs) for test in BY_SLICE}
            continue
        sides = {**x, "slices": of.reference["codes"]}, {**y, "slices": of.current["codes"]}
        found |= {f"{test}:{name}": named(ask_one(test, sides, engine, ask), of.names) for test in BY_SLICE}
    return found


def _clicks(table: pa.Table) -> dict[str, Any]:
    """Positions over 100 are as one; below 0, none."""
    values = np.nan_to_num(_number(table, POSITION), nan=-1)
    positions = np.where(values >= 0, np.minimum(values, 100), -1).astype(np.int64)
    return {"positions": positions, "labels": _number(table, LABEL)}


def _judged(table: pa.Table) -> dict[str, Any]:
    return {"scores": _number(table, SCORE), "labels": _number(table, LABEL)}


def _number(table: pa.Table, name: str) -> Any:
    column = table[name]
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise CannotJudge(f"{name} is {column.type}, not a number")
    values = np.asarray(pc.fill_null(column.cast(pa.float64(), safe=False), np.nan).to_numpy(), np.float64)
    if np.isinf(values).any():
        raise CannotJudge(f"{name} has infinite values")
    return values


def _codes(reference: pa.ChunkedArray, current: pa.ChunkedArray) -> tuple[Any, Any]:
    before, now = ids(reference), ids(current)
    codes = np.unique(np.concatenate([before, now]), return_inverse=True)[1].astype(np.int64)
    return codes[: len(before)], codes[len(before) :]
