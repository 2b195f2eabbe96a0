"""A column in a few bins that its reference sets: how far apart, where and since when are all asked of these.

Numbers fall between the reference's deciles, words into its most frequent ones; what is missing has a bin of its own,
and so have words that the reference does not know. B bins.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

CUTS = 10
WORDS = 50  # named; the rest of the reference's words are together
Codes = NDArray[np.int64]
Column: TypeAlias = pa.Array | pa.ChunkedArray


@dataclass(frozen=True, slots=True)
class Bins:
    """edges: ascending, of numbers; words: of words. Bin 0 is missing; of words, 1 is unseen and 2 the rest."""

    edges: NDArray[np.float64] | None
    words: tuple[str, ...] = ()
    rare: frozenset[str] = frozenset()

    @classmethod
    def of(cls, reference: Column) -> "Bins":
        if is_words(reference):
            counts = pc.value_counts(_text(reference).drop_null())
            ordered = sorted(
                zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True),
                key=lambda pair: (-pair[1], pair[0]),
            )
            words = [word for word, _ in ordered]
            return cls(None, tuple(words[:WORDS]), frozenset(words[WORDS:]))
        values = numbers(reference)
        values = values[np.isfinite(values)]
        if not len(values):
            return cls(np.empty(0))
        # Both sides of a value that many rows have are edges: a column of counts keeps a bin for its zero.
        cuts = np.unique(np.quantile(values, np.arange(1, CUTS) / CUTS, method="inverted_cdf"))
        return cls(np.unique(np.concatenate([cuts, np.nextafter(cuts, np.inf)])))

    @property
    def size(self) -> int:
        return len(self.words) + 3 if self.edges is None else len(self.edges) + 2

    def codes(self, column: Column) -> Codes:
        if self.edges is None:
            text = _text(column)
            known = pc.index_in(text, value_set=pa.array(self.words, pa.string()))
            codes = pc.fill_null(known, -1).to_numpy(zero_copy_only=False).astype(np.int64) + 3
            unnamed = codes == 2
            if unnamed.any():
                rest = pc.is_in(text, value_set=pa.array(sorted(self.rare), pa.string()))
                codes[unnamed & ~rest.to_numpy(zero_copy_only=False)] = 1
            codes[pc.is_null(text).to_numpy(zero_copy_only=False)] = 0
            return codes
        values = numbers(column)
        codes = np.searchsorted(self.edges, values, side="right") + 1
        codes[~np.isfinite(values)] = 0
        return codes

    def shares(self, codes: Codes) -> NDArray[np.float64]:
        """Share of each bin [B], with half a row added to each so that none is 0."""
        counts = np.bincount(codes, minlength=self.size) + 0.5
        return np.asarray(counts / counts.sum(), np.float64)

    def name(self, code: int) -> str:
        """What a bin holds, for a person."""
        if code == 0:
            return "missing"
        if self.edges is None:
            return ("unseen", "others")[code - 1] if code < 3 else self.words[code - 3]
        low = self.edges[code - 2] if code > 1 else -math.inf
        high = self.edges[code - 1] if code <= len(self.edges) else math.inf
        if high == np.nextafter(low, np.inf):
            return f"{low:.4g}"
        return f"{low:.4g} to {high:.4g}"


def psi(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """Population stability index of two sets of shares [B]; by custom 0.1 is a change to look at, 0.25 a large one."""
    return float(((current - reference) * np.log(current / reference)).sum())


def is_words(column: Column) -> bool:
    kind: Any = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def numbers(column: Column) -> NDArray[np.float64]:
    """float64, NaN where null.

    Raises:
        pa.ArrowException: they are none.
    """
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(whole.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _text(column: Column) -> pa.Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole.cast(pa.string())
