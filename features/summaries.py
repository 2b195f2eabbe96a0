"""What a column of features looks like: taken once when a model is trained, and again of what was served.

Columns come batch by batch; means and deviations are merged as Chan, Golub and LeVeque do (1979), so that a window of
any size takes the same memory. Null and NaN are both "not there", as is an infinite value.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from contracts.errors import DataError

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
MOST_WORDS = 2_000  # different words that are counted by name; what comes later is counted together
KEPT = 20_000  # values kept for the quantiles

Form = Literal["number", "word"]


class Summary(BaseModel):
    """n: rows; null_rate: of them not there; default_rate: of the rows of which it is known (else null) served from the
    default. mean, sd (of the sample, n − 1), min, max, quantiles: of the values that are there; None without any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Form
    n: int
    null_rate: float | None
    default_rate: float | None
    mean: float | None = None
    sd: float | None = None
    min: float | None = None
    max: float | None = None
    quantiles: dict[str, float] = {}
    categories: dict[str, int] = {}
    other: int = 0

    @property
    def missing_rate(self) -> float | None:
        """Share of rows with no value of their own: null, or the default."""
        if self.null_rate is None:
            return None
        return min(1.0, self.null_rate + (self.default_rate or 0.0))


@dataclass(slots=True)
class Tally:
    """One column, as it comes. random: for the sample that quantiles are of."""

    kind: Form
    random: np.random.Generator
    n: int = 0
    nulls: int = 0
    flagged: int = 0
    defaults: int = 0
    _values: int = 0
    _mean: float = 0.0
    _squares: float = 0.0
    _min: float = float("inf")
    _max: float = float("-inf")
    _kept: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    _keys: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    _words: Counter[str] = field(default_factory=Counter)
    _other: int = 0

    def add(self, column: pa.Array | pa.ChunkedArray, defaults: pa.Array | pa.ChunkedArray | None = None) -> None:
        """
        Raises:
            DataError: the column's type is not that of the feature.
        """
        self.n += len(column)
        if defaults is not None:
            self.flagged += len(defaults) - defaults.null_count
            self.defaults += pc.sum(defaults).as_py() or 0
        if self.kind == "word":
            self._add_words(column)
        else:
            self._add_numbers(column)

    def _add_numbers(self, column: pa.Array | pa.ChunkedArray) -> None:
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
            raise DataError(f"values of type {column.type} where numbers were expected")
        values = np.asarray(column.cast(pa.float64()).drop_null().to_numpy(), np.float64)
        values = values[np.isfinite(values)]
        self.nulls += len(column) - len(values)
        n = len(values)
        if not n:
            return
        mean = float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        total = self._values + n
        gap = mean - self._mean
        self._squares += squares + gap * gap * self._values * n / total
        self._mean += gap * n / total
        self._values = total
        self._min, self._max = min(self._min, float(values.min())), max(self._max, float(values.max()))
        # Each value draws a key; those with the smallest stay: a uniform sample of all of them.
        keys = self.random.random(n)
        if len(self._keys) == KEPT:
            chosen = keys < self._keys.max()
            values, keys = values[chosen], keys[chosen]
        keys, values = np.concatenate([self._keys, keys]), np.concatenate([self._kept, values])
        if len(keys) > KEPT:
            first = np.argpartition(keys, KEPT)[:KEPT]
            keys, values = keys[first], values[first]
        self._keys, self._kept = keys, values

    def _add_words(self, column: pa.Array | pa.ChunkedArray) -> None:
        kind = column.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise DataError(f"values of type {column.type} where words were expected")
        self.nulls += column.null_count
        for pair in pc.value_counts(column.cast(pa.string())).to_pylist():
            word, count = pair["values"], pair["counts"]
            if word is None:
                continue
            if word in self._words or len(self._words) < MOST_WORDS:
                self._words[word] += count
            else:
                self._other += count

    def summary(self) -> Summary:
        rate = self.nulls / self.n if self.n else None
        defaults = self.defaults / self.flagged if self.flagged else None
        common: dict[str, Any] = {"kind": self.kind, "n": self.n, "null_rate": rate, "default_rate": defaults}
        if self.kind == "word":
            return Summary(**common, categories=dict(self._words.most_common()), other=self._other)
        if not self._values:
            return Summary(**common)
        sd = (self._squares / (self._values - 1)) ** 0.5 if self._values > 1 else None
        cuts = np.quantile(self._kept, SHARES)
        return Summary(
            **common,
            mean=self._mean,
            sd=sd,
            min=self._min,
            max=self._max,
            quantiles={f"{share:g}": float(cut) for share, cut in zip(SHARES, cuts, strict=True)},
        )
