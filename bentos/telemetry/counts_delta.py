"""Item counts as their difference to earlier ones: from one look to the next most items have met nothing.

What is stored of each column is the difference of its bits to what the earlier counts foretell: for whole numbers and
shares the same number, for decayed sums the number decayed by one factor, which is in the file. So a column comes back
bit by bit, and most of what is stored are zeros. B rows of the base, R rows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.item_counts import TRENDING_HALF_LIFE_US, ItemCounts

COLUMNS = ("n", "valued", "share")


def delta(base: ItemCounts, counts: ItemCounts) -> dict[str, NDArray[Any]]:
    """Arrays to be stored; `base` is the earlier one."""
    known, keys = _keys(base), _keys(counts)
    if keys == known:  # as ever, but for new items and old ones
        at, new = np.arange(len(keys), dtype=np.int32), []
    else:
        places = {key: place for place, key in enumerate(known)}
        at = np.array([places.get(key, -1) for key in keys], np.int32)
        new = [key for key, place in zip(keys, at.tolist(), strict=True) if place < 0]
    factor = 2.0 ** -((counts.now_us - base.now_us) / TRENDING_HALF_LIFE_US)
    foretold = _foretold(base, at, factor)
    differences = {name: _planes(getattr(counts, name), foretold[name]) for name in ("decayed", *COLUMNS)}
    return {
        "when": np.array([counts.now_us, counts.since_us, base.now_us], np.int64),
        "factor": np.array([factor]),
        # Runs of rows that follow one another as in the base become runs of one number.
        "steps": np.diff(at, prepend=np.int32(-1)),
        "new": np.frombuffer("\0".join(f"{i}\0{event}\0{grade}" for i, event, grade in new).encode(), np.uint8),
        **differences,
    }


def restored(base: ItemCounts, stored: Mapping[str, NDArray[Any]]) -> ItemCounts:
    """The counts that `delta` was made of, bit by bit."""
    now_us, since_us, _ = stored["when"].tolist()
    at = np.cumsum(stored["steps"], dtype=np.int32) - np.int32(1)
    words = stored["new"].tobytes().decode().split("\0") if len(stored["new"]) else []
    new = iter(zip(words[::3], words[1::3], map(int, words[2::3]), strict=True))
    known = _keys(base)
    keys = [known[place] if place >= 0 else next(new) for place in at.tolist()]
    foretold = _foretold(base, at, float(stored["factor"][0]))
    columns = {name: _back(stored[name], foretold[name]) for name in ("decayed", *COLUMNS)}
    return ItemCounts(
        now_us,
        [key[0] for key in keys],
        [key[1] for key in keys],
        np.array([key[2] for key in keys], np.int16),
        columns["decayed"].view(np.float64),
        columns["n"],
        columns["valued"],
        columns["share"].view(np.float64),
        since_us,
    )


def _keys(counts: ItemCounts) -> list[tuple[str, str, int]]:
    return list(zip(counts.item_ids, counts.events, counts.grade.tolist(), strict=True))


def _foretold(base: ItemCounts, at: NDArray[np.int32], factor: float) -> dict[str, NDArray[np.int64]]:
    """Bits of each column, int64 [R]; 0 for new rows."""
    columns = {"decayed": base.decayed * factor, **{name: getattr(base, name) for name in COLUMNS}}
    return {name: np.where(at >= 0, np.append(_bits(column), 0)[at], 0) for name, column in columns.items()}


def _bits(column: NDArray[Any]) -> NDArray[np.int64]:
    return np.ascontiguousarray(column).view(np.int64)


def _planes(column: NDArray[Any], foretold: NDArray[np.int64]) -> NDArray[np.uint8]:
    """uint8 [8, R]: the differences byte by byte, small ones of either sign as small numbers: most planes are zeros."""
    difference = _bits(column) - foretold
    folded = (difference << 1) ^ (difference >> 63)
    return np.ascontiguousarray(folded.view(np.uint8).reshape(-1, 8).T)


def _back(planes: NDArray[np.uint8], foretold: NDArray[np.int64]) -> NDArray[np.int64]:
    folded = np.ascontiguousarray(planes.T).reshape(-1).view(np.uint64)
    difference = (folded >> np.uint64(1)).view(np.int64) ^ -(folded & np.uint64(1)).view(np.int64)
    return foretold + difference
