"""What counts as a wish for an item: the one label of training, evaluation and online metrics.

`dataset.toml` says it (`[[positives]]`), a bundle keeps it (`meaning` in its manifest), and everybody asks here: once
for an event, once in SQL, once for columns. The first rule that fits an event decides.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.dataset import DatasetConfig, Positive


@dataclass(frozen=True, slots=True)
class LabelRule:
    positives: tuple[Positive, ...]

    @classmethod
    def of(cls, config: DatasetConfig) -> "LabelRule":
        return cls(config.positives)

    @property
    def digest(self) -> str:
        """SHA-256: two parties with the same one label alike."""
        rules = [positive.model_dump(mode="json") for positive in self.positives]
        return hashlib.sha256(msgspec.json.encode(rules, order="sorted")).hexdigest()

    @property
    def events(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(positive.event for positive in self.positives))

    @property
    def longest_h(self) -> float:
        """After so long an exposure that has no positive event is a negative."""
        return max(positive.attribution_h for positive in self.positives)

    def which(self, event: str, value: float | None) -> Positive | None:
        """The rule by which the event is a positive; None where it is none."""
        for positive in self.positives:
            if positive.event == event and (
                positive.min_value is None or (value is not None and value >= positive.min_value)
            ):
                return positive
        return None

    def weight(self, event: str, value: float | None) -> float:
        """Of an event as a wish for its item; 0 when it is none."""
        positive = self.which(event, value)
        return positive.weight if positive else 0.0

    def sql(self, value: str = "value", *, event: str = "event") -> str:
        """`weight` as a DuckDB expression over columns. value: "NULL" where there is no such column."""
        cases = "".join(
            f" WHEN {event} = {_text(p.event)}"
            + ("" if p.min_value is None else f" AND {value} >= {p.min_value!r}")
            + f" THEN {p.weight!r}"
            for p in self.positives
        )
        return f"(CASE{cases} ELSE 0 END)::DOUBLE"

    def places(self, event: pa.ChunkedArray, value: pa.ChunkedArray | None) -> NDArray[np.int64]:
        """Which rule makes each row a positive, int64 [R] into `positives`; -1 where none does."""
        found = np.full(len(event), -1, np.int64)
        for at in reversed(range(len(self.positives))):
            found[self._fits(self.positives[at], event, value)] = at
        return found

    def mask(self, event: pa.ChunkedArray, value: pa.ChunkedArray | None) -> NDArray[np.bool_]:
        """Which rows are positives, bool [R]."""
        return self.places(event, value) >= 0

    def _fits(self, positive: Positive, event: pa.ChunkedArray, value: pa.ChunkedArray | None) -> NDArray[np.bool_]:
        fits = np.asarray(pc.fill_null(pc.equal(event, positive.event), False).to_numpy(), bool)
        if positive.min_value is None:
            return fits
        if value is None:
            return np.zeros(len(fits), bool)
        reached = pc.fill_null(pc.greater_equal(value, positive.min_value), False)
        return fits & np.asarray(reached.to_numpy(), bool)

    def differences(self, other: "LabelRule") -> list[str]:
        """What the other one says otherwise, for a person; empty where both label alike."""
        said = []
        mine, theirs = (_by_case(rule.positives) for rule in (self, other))
        for case in sorted(mine.keys() | theirs.keys(), key=str):
            a, b = mine.get(case), theirs.get(case)
            name = _named(*case)
            if a is None or b is None:
                said.append(f"{name} is a positive in {'the second' if a is None else 'the first'} only")
                continue
            for field, unit in (("weight", ""), ("attribution_h", " h")):
                left, right = getattr(a, field), getattr(b, field)
                if left != right:
                    said.append(f"{name}: {field} is {left:g}{unit} in the first, {right:g}{unit} in the second")
        if not said and self.positives != other.positives:
            said.append("the rules stand in another order, and the first that fits decides")
        return said


def _by_case(positives: Sequence[Positive]) -> dict[tuple[str, float | None], Positive]:
    found: dict[tuple[str, float | None], Positive] = {}
    for positive in positives:
        found.setdefault((positive.event, positive.min_value), positive)
    return found


def _named(event: str, min_value: float | None) -> str:
    return f"`{event}`" if min_value is None else f"`{event}` of at least {min_value:g}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
