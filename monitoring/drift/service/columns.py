"""The columns of two tables of one row a user, each put before the detectors that fit it.

A check's name says what was looked at: `input.price`, `missing.price`, `unseen.country`, `range.price`; of what was
shown, `output.score`, `output.category`, `output.popularity`, `output.coverage`, `output.sources`. Codes of words are
the same on both sides. n rows of the reference, m of the window.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.serving import SOURCES
from features.frame import MADE_FROM, default_flag
from features.ranking import CLOCK_COLUMNS
from monitoring.drift.base import ALPHA, Columns, Engine, Result, inconclusive
from monitoring.drift.registry import DETECTORS
from monitoring.drift.service.binned import is_words, numbers

SCORE, ITEM, CATEGORY = "score", "item_id", "category"
BROUGHT = tuple(f"brought_{name}" for name in SOURCES)
# Told as outputs, or differing with the hour of the day by their nature.
NOT_INPUTS = frozenset((CATEGORY, *BROUGHT, *CLOCK_COLUMNS))
COVERAGE_ROWS = 3_000  # a side: its permutations cost rows × 999

Names = dict[str, dict[int, str]]  # check → code → word


def judge(
    reference: pa.Table,
    current: pa.Table,
    features: Sequence[str],
    *,
    engine: Engine,
    seed: int = 0,
    alpha: float = ALPHA,
) -> dict[str, Result]:
    """Check → what it found, not yet corrected for their number. Never raises for what the data are.

    features: columns that are inputs; one that only one side has, or whose types differ, is `inconclusive`.
    """
    found: dict[str, Result] = {}
    for name in features:
        if name not in NOT_INPUTS:
            found |= _column(name, reference, current, engine=engine, seed=seed, alpha=alpha)
    found |= _outputs(reference, current, engine=engine, seed=seed, alpha=alpha)
    return found


def column_of(check: str) -> str:
    """`price` of `input.price`."""
    return check.partition(".")[2]


def _column(
    name: str, reference: pa.Table, current: pa.Table, *, engine: Engine, seed: int, alpha: float
) -> dict[str, Result]:
    problem = _problem(name, reference, current)
    if problem:
        return {f"input.{name}": inconclusive("none", problem, weighs=name in reference.column_names)}
    before, now = reference[name], current[name]

    def run(detector: str, mine: Columns, theirs: Columns) -> Result:
        return DETECTORS[detector](mine, theirs, engine=engine, seed=seed, alpha=alpha)

    missing = [{"missing": _missing(name, side)} for side in (reference, current)]
    found = {f"missing.{name}": run("missing", *missing)}
    if is_words(before):
        codes, words = coded(before, now)
        sides: list[Columns] = [{"codes": side} for side in codes]
        found[f"input.{name}"] = _named(run("chi_square", *sides), words)
        found[f"unseen.{name}"] = _named(run("unseen", *sides), words)
    else:
        try:
            sides = [{"values": numbers(side)} for side in (before, now)]
        except pa.ArrowException as error:
            return {f"input.{name}": inconclusive("ks", f"values that are no numbers: {error}")}
        found[f"input.{name}"] = run("ks", *sides)
        found[f"range.{name}"] = run("out_of_range", *sides)
    if all(side["missing"].all() for side in missing):  # nothing is there to be judged, on either side
        return {check: replace(result, weighs=False) for check, result in found.items()}
    return found


def _outputs(reference: pa.Table, current: pa.Table, *, engine: Engine, seed: int, alpha: float) -> dict[str, Result]:
    def run(check: str, detector: str, column: str, role: str, make: Any) -> Iterator[tuple[str, Result]]:
        if column in reference.column_names or column in current.column_names:
            problem = _problem(column, reference, current)
            if problem:
                yield check, inconclusive(detector, problem, weighs=column in reference.column_names)
                return
            sides = [{role: side} for side in make(reference[column], current[column])]
            yield check, DETECTORS[detector](*sides, engine=engine, seed=seed, alpha=alpha)

    def some(before: pa.ChunkedArray, now: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        codes, _ = coded(before, now)
        random = np.random.default_rng(seed)
        first, second = (random.permutation(side)[:COVERAGE_ROWS] for side in codes)
        return first, second

    found = dict(run("output.score", "ks", SCORE, "values", lambda a, b: (numbers(a), numbers(b))))
    found |= run("output.popularity", "popularity", ITEM, "items", lambda a, b: coded(a, b)[0])
    found |= run("output.coverage", "coverage", ITEM, "items", some)
    found |= run("output.category", "chi_square", CATEGORY, "codes", lambda a, b: coded(a, b)[0])
    if "output.category" in found and found["output.category"].details:
        words = coded(reference[CATEGORY], current[CATEGORY])[1]
        found["output.category"] = _named(found["output.category"], words)
    brought = [name for name in BROUGHT if name in reference.column_names and name in current.column_names]
    if brought:
        sides = [{"sources": np.stack([numbers(t[n]) > 0 for n in brought], axis=1)} for t in (reference, current)]
        result = DETECTORS["sources"](*sides, engine=engine, seed=seed, alpha=alpha)
        found["output.sources"] = _named(result, [name.removeprefix("brought_") for name in brought])
    return found


def coded(before: pa.ChunkedArray, now: pa.ChunkedArray) -> tuple[list[NDArray[np.int64]], list[str]]:
    """int64 [n] and [m], −1 missing, and the word of each code."""
    both = pa.concat_arrays([_whole(before), _whole(now)])
    encoded = pc.dictionary_encode(both)
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return [codes[: len(before)], codes[len(before) :]], encoded.dictionary.to_pylist()


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.cast(pa.string()).combine_chunks()


def _missing(name: str, table: pa.Table) -> NDArray[np.bool_]:
    """No value of its own: null, no number, or the default that stands in for it."""
    column = table[name]
    there = pc.is_valid(column).to_numpy() if is_words(column) else np.isfinite(numbers(column))
    missing = ~np.asarray(there, bool)
    flag = default_flag(MADE_FROM[name]) if name in MADE_FROM else ""
    if flag in table.column_names:
        missing |= np.asarray(pc.fill_null(table[flag], False).to_numpy(), bool)
    return missing


def _problem(name: str, reference: pa.Table, current: pa.Table) -> str:
    if name not in reference.column_names:
        return "a new column: the reference does not have it" if name in current.column_names else "in neither"
    if name not in current.column_names:
        return "a dropped column: the window does not have it"
    kinds = [_kind(table[name]) for table in (reference, current)]
    if "other" in kinds:
        return f"a column of type {(reference if kinds[0] == 'other' else current)[name].type}"
    if kinds[0] != kinds[1] and "null" not in kinds:
        return f"{kinds[0]} in the reference, {kinds[1]} in the window"
    return f"every value of the {('reference', 'window')[kinds.index('null')]} is missing" if "null" in kinds else ""


def _kind(column: pa.ChunkedArray) -> str:
    kind = column.type
    if pa.types.is_null(kind):
        return "null"
    if is_words(column):
        return "words"
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    return "numbers" if number else "other"


def _named(result: Result, words: Sequence[str]) -> Result:
    """Codes of what moved as words."""
    moved = result.details.get("moved")
    if not moved:
        return result
    named = [{**m, "category": words[m["category"]] if m["category"] < len(words) else "?"} for m in moved]
    details: Mapping[str, Any] = {**result.details, "moved": named}
    return replace(result, details=details)
