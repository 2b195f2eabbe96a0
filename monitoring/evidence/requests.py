"""Requests of the arms that an event may still name: whose they are, and what was in their slates."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.evidence.columns import Answers, Bools, positions
from monitoring.evidence.index import Index, Ints, UInts

MARKS = 8  # kinds of acts whose first one counts


class Requests:
    """About 60 bytes a request and 5 for each item of its slate: 160 bytes with 20 items.

    Args:
        keys: of the slices.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._index = Index()
        self._row = _Growing(
            [("time_us", "i8"), ("unit", "u8"), ("start", "i8"), ("length", "i4"), ("arm", "i1"), ("rung", "i1")]
            + [(f"slice:{key}", "i2") for key in keys]
        )
        self._item = _Growing([("id", "u4"), ("acted", "u1")])
        self._keys = keys

    def __len__(self) -> int:
        return len(self._row)

    def new(self, answers: Answers) -> Bools:
        """Which of them are not here yet; of two with one id the first."""
        unknown = self._index.find(answers.request) < 0
        _, first = np.unique(answers.request, return_index=True)
        once = np.zeros(len(answers), bool)
        once[first] = True
        return unknown & once

    def add(self, answers: Answers) -> None:
        """New ones, each once."""
        rows = self._index.add(answers.request)
        assert len(self._index) == len(self._row) + len(answers)  # noqa: S101 — `new` was asked
        order = np.argsort(rows)
        answers = answers.where(order)
        lengths = answers.items.lengths
        start = len(self._item) + np.cumsum(lengths) - lengths
        self._item.add(id=answers.items.flat, acted=np.zeros(len(answers.items.flat), np.uint8))
        self._row.add(
            time_us=answers.time_us,
            unit=answers.unit,
            start=start,
            length=lengths,
            arm=answers.arm,
            rung=answers.rung,
            **{f"slice:{key}": answers.slices[key] for key in self._keys},
        )

    def find(self, request: UInts, item: NDArray[np.uint32]) -> tuple[Ints, Ints]:
        """Row of each request (-1: not here), and the place of its item (-1: not in the slate)."""
        rows = self._index.find(request)
        places = np.full(len(rows), -1)
        here = np.flatnonzero(rows >= 0)
        lengths = self._row["length"][rows[here]].astype(np.int64)
        at = positions(self._row["start"][rows[here]], lengths)
        event = np.repeat(here, lengths)
        hit = np.flatnonzero(self._item["id"][at] == item[event])[::-1]  # the first of two comes last, and stays
        places[event[hit]] = at[hit]
        return rows, places

    def first(self, places: Ints, order: Ints, bit: int) -> Bools:
        """Which of these acts are the first of their kind on their item; remembers them. order: time of each."""
        bit_value = np.uint8(1 << bit)
        by_time = np.lexsort((order, places))
        _, at = np.unique(places[by_time], return_index=True)
        once = np.zeros(len(places), bool)
        once[by_time[at]] = True
        once &= (self._item["acted"][places] & bit_value) == 0
        self._item["acted"][places] |= bit_value
        return once

    def __getitem__(self, name: str) -> Any:
        """A column: time_us, unit, arm, rung, `slice:KEY`."""
        return self._row[name]

    def forget(self, before_us: int) -> None:
        """Those before it, once they are half of all."""
        keep = np.flatnonzero(self._row["time_us"] >= before_us)
        if len(keep) * 2 > len(self):
            return
        lengths = self._row["length"][keep].astype(np.int64)
        items = positions(self._row["start"][keep], lengths)
        keys = np.empty(len(self), np.uint64)
        known, rows = self._index.items()
        keys[rows] = known
        self._row.keep(keep)
        self._row["start"][:] = np.cumsum(lengths) - lengths
        self._item.keep(items)
        self._index = Index.of(keys[keep])

    @property
    def nbytes(self) -> int:
        return self._index.nbytes + self._row.nbytes + self._item.nbytes


class _Growing:
    """Columns that are appended to; room grows by half."""

    def __init__(self, columns: list[tuple[str, str]]) -> None:
        self._columns = {name: np.empty(0, kind) for name, kind in columns}
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, name: str) -> Any:
        return self._columns[name][: self._n]

    def add(self, **values: Any) -> None:
        n = self._n + len(next(iter(values.values())))
        for name, column in self._columns.items():
            if n > len(column):
                column = self._columns[name] = np.resize(column, max(n, len(column) * 3 // 2, 1024))
            column[self._n : n] = values[name]
        self._n = n

    def keep(self, rows: Ints) -> None:
        self._columns = {name: column[: self._n][rows] for name, column in self._columns.items()}
        self._n = len(rows)

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self._columns.values())
