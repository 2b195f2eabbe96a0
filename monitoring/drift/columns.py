"""From one column of two tables to what detectors take: its kind, and NumPy columns by role for both sides.

The kind is the reference's alone, so that a window cannot choose the test it is judged by.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.drift.base import CannotJudge

Kind = Literal["number", "category", "vector", "sources"]

FEW = 10  # different numbers up to here are categories: a count of children has no distribution function to speak of
MANY = 1_000  # different categories above here identify rows


@dataclass(frozen=True, slots=True)
class Pair:
    """names: of the codes."""

    kind: Kind
    reference: dict[str, NDArray[Any]]
    current: dict[str, NDArray[Any]]
    names: list[str] = field(default_factory=list)


def pair(reference: pa.ChunkedArray, current: pa.ChunkedArray) -> Pair:
    """Raises CannotJudge: of several types, of a type that has no test, an identifier."""
    kinds = _kind(reference.type), _kind(current.type)
    if None in kinds:
        raise CannotJudge("every value of the reference is missing" if kinds[0] is None else _gone(current))
    if kinds[0] == "other":
        raise CannotJudge(f"columns of {reference.type} have no test", weighs=False)
    if kinds[0] != kinds[1]:
        raise CannotJudge(f"{reference.type} in the reference, {current.type} now")
    if kinds[0] == "number":
        return _numbers(_floats(reference), _floats(current))
    if kinds[0] == "category":
        return _categories(reference, current)
    if kinds[0] == "vector":
        return Pair("vector", _vectors(reference, "reference"), _vectors(current, "current"))
    return _sources(reference, current)


def ids(column: pa.ChunkedArray) -> NDArray[np.str_]:
    """As words; a missing one is `None`. Raises CannotJudge: of a type that is no id."""
    if _kind(column.type) not in (None, "category", "number"):
        raise CannotJudge(f"ids of {column.type}")
    return np.asarray([str(value) for value in column.to_pylist()], dtype=np.str_)


def _kind(type_: pa.DataType) -> Kind | Literal["other"] | None:
    if pa.types.is_null(type_):
        return None
    if pa.types.is_dictionary(type_):
        return _kind(type_.value_type)
    if pa.types.is_boolean(type_) or pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "category"
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "number"
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        of = _kind(type_.value_type)
        return {"number": "vector", "category": "sources"}.get(str(of), "other")  # type: ignore[return-value]
    return "other"


def _gone(column: pa.ChunkedArray) -> str:
    return "the current is empty" if not len(column) else "every value of the current is missing"


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Missing values are NaN. Integers over 2^53 and decimals are rounded."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    column = column.cast(pa.float64(), safe=False)
    return np.asarray(pc.fill_null(column, np.nan).to_numpy(), np.float64)


def _numbers(x: NDArray[np.float64], y: NDArray[np.float64]) -> Pair:
    there = x[np.isfinite(x)]
    distinct = np.unique(there)
    if not 2 <= len(distinct) <= FEW or np.isinf(x).any() or np.isinf(y).any():
        return Pair("number", {"values": x, "missing": np.isnan(x)}, {"values": y, "missing": np.isnan(y)})
    known = np.unique(np.concatenate([distinct, y[~np.isnan(y)]]))

    def coded(values: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        gone = np.isnan(values)
        return {"codes": np.where(gone, -1, np.searchsorted(known, values)).astype(np.int64), "missing": gone}

    return Pair("category", coded(x), coded(y), [f"{value:g}" for value in known])


def _categories(reference: pa.ChunkedArray, current: pa.ChunkedArray) -> Pair:
    parts = [column.cast(pa.large_string()) for column in (reference, current)]
    distinct = pc.count_distinct(parts[0]).as_py()
    if distinct > MANY:
        raise CannotJudge(f"{distinct} different values in the reference, over {MANY}: an identifier", weighs=False)
    both = pa.chunked_array([*parts[0].chunks, *parts[1].chunks], pa.large_string())
    encoded = both.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.large_string())
    encoded = encoded.dictionary_encode()
    codes = np.asarray(pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False), np.int64)
    x, y = codes[: len(reference)], codes[len(reference) :]
    return Pair(
        "category", {"codes": x, "missing": x < 0}, {"codes": y, "missing": y < 0}, encoded.dictionary.to_pylist()
    )


def _vectors(column: pa.ChunkedArray, side: str) -> dict[str, NDArray[Any]]:
    """A row whose vector is missing is NaN."""
    there = column.is_valid().to_numpy()
    widths = pc.unique(pc.list_value_length(column.drop_null())).to_pylist()
    if not len(column) or not widths:
        raise CannotJudge(f"the {side} is empty" if not len(column) else f"every value of the {side} is missing")
    if len(widths) > 1 or not widths[0]:
        raise CannotJudge(f"vectors of the {side} have {', '.join(map(str, sorted(widths)[:5]))} numbers")
    flat = _floats(pa.chunked_array([pc.list_flatten(chunk) for chunk in column.drop_null().chunks]))
    vectors = np.full((len(column), widths[0]), np.nan)
    vectors[there] = flat.reshape(-1, widths[0])
    return {"vectors": vectors, "missing": ~there}


def _sources(reference: pa.ChunkedArray, current: pa.ChunkedArray) -> Pair:
    flat = [pc.list_flatten(column) for column in (reference, current)]
    names = sorted({str(n) for side in flat for n in pc.unique(side).to_pylist() if n is not None})
    if len(names) > FEW * FEW:
        raise CannotJudge(f"{len(names)} different words in lists, over {FEW * FEW}", weighs=False)
    at = {name: i for i, name in enumerate(names)}

    def marks(column: pa.ChunkedArray) -> dict[str, NDArray[Any]]:
        found = np.zeros((len(column), len(names)), np.bool_)
        rows = pc.list_parent_indices(column).to_pylist()
        for row, word in zip(rows, pc.list_flatten(column).to_pylist(), strict=True):
            if word is not None:
                found[row, at[str(word)]] = True
        return {"sources": found}

    return Pair("sources", marks(reference), marks(current), names)
