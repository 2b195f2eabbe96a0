"""Sums over units, kept as the units change: reading them costs nothing, however many units there are.

A cell is one unit in one group (an arm, or an arm with a slice or a rung). A column is one metric: per cell a numerator
x and a denominator y, per group the sums that a ratio's variance by the delta method needs.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monitoring.evidence.index import Index, Ints, UInts, mixed

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sums:
    """Over the units of a group that have y > 0. on: of these, units with x > 0."""

    n: int = 0
    sum_x: float = 0.0
    sum_y: float = 0.0
    sum_xx: float = 0.0
    sum_yy: float = 0.0
    sum_xy: float = 0.0
    on: int = 0


class Column:
    """One metric. once: x of a unit is at most 1, however often (`event_rate`)."""

    def __init__(self, once: bool = False) -> None:
        self.once = once
        self.x: Floats = np.zeros(0)
        self.y: Floats = np.zeros(0)
        self.sums: Floats = np.zeros((7, 0))  # rows as the fields of Sums

    def add(self, cells: Ints, groups: Ints, dx: Floats, dy: Floats, n_groups: int) -> None:
        """Add to cells, each named once; groups: of each cell."""
        x0, y0 = self.x[cells], self.y[cells]
        x1, y1 = x0 + dx, y0 + dy
        if self.once:
            np.minimum(x1, 1.0, out=x1)
        self.x[cells], self.y[cells] = x1, y1
        is1, was1 = y1 > 0, y0 > 0
        change = np.stack(
            (
                is1 * 1.0 - was1,
                x1 - x0,
                y1 - y0,
                x1 * x1 - x0 * x0,
                y1 * y1 - y0 * y0,
                x1 * y1 - x0 * y0,
                (is1 & (x1 > 0)) * 1.0 - (was1 & (x0 > 0)),
            )
        )
        for row, values in zip(self.sums, change, strict=True):
            row[:n_groups] += np.bincount(groups, values, n_groups)

    def grow(self, cells: int, groups: int) -> None:
        if cells > len(self.x):
            room = max(cells, len(self.x) * 3 // 2, 1024)
            self.x, self.y = _longer(self.x, room), _longer(self.y, room)
        if groups > self.sums.shape[1]:
            self.sums = np.concatenate((self.sums, np.zeros((7, groups - self.sums.shape[1] + 8))), axis=1)

    def of(self, group: int) -> Sums:
        if group >= self.sums.shape[1]:
            return Sums()
        n, x, y, xx, yy, xy, on = self.sums[:, group]
        return Sums(round(n), x, y, xx, yy, xy, round(on))


@dataclass(frozen=True, slots=True)
class Batch:
    """Where the records of a batch go: `cells` and their `groups` once each, and for each record the place in them."""

    cells: Ints
    groups: Ints
    place: Ints
    n_groups: int
    is_new: NDArray[np.bool_]

    def total(self, values: Floats | None = None) -> Floats:
        """Sum of the records' values for each cell; how many they are without values."""
        return np.bincount(self.place, values, len(self.cells)).astype(np.float64)


@dataclass
class Cells:
    """Memory: 16 bytes a cell for the index and 16 for each column."""

    columns: dict[str, Column] = field(default_factory=dict)
    _index: Index = field(default_factory=Index)
    _n_groups: int = 0

    def __len__(self) -> int:
        return len(self._index)

    def find(self, units: UInts, groups: Ints) -> Ints:
        """The cell of each, -1 where there is none."""
        return self._index.find(_key(units, groups))

    def batch(self, units: UInts, groups: Ints) -> Batch:
        """Make room for these records and say where they go. Groups are small numbers, not below 0."""
        before = len(self._index)
        rows = self._index.add(_key(units, groups))
        cells, first, place = np.unique(rows, return_index=True, return_inverse=True)
        self._n_groups = max(self._n_groups, int(groups.max(initial=-1)) + 1)
        for column in self.columns.values():
            column.grow(len(self._index), self._n_groups)
        return Batch(cells, groups[first], place, self._n_groups, cells >= before)

    def add(self, name: str, batch: Batch, dx: Floats, dy: Floats) -> None:
        """dx, dy: for each of `batch.cells`."""
        self.columns[name].add(batch.cells, batch.groups, dx, dy, batch.n_groups)

    def sums(self, name: str, group: int) -> Sums:
        return self.columns[name].of(group)

    def open(self, name: str, denominator: str) -> None:
        """A column that starts now, as if it had been there with x = 0 and the other's y from the beginning."""
        like = self.columns[denominator]
        column = self.columns[name] = Column()
        column.x, column.y = np.zeros_like(like.x), like.y.copy()
        column.sums = like.sums.copy()
        column.sums[[1, 3, 5, 6]] = 0.0

    @property
    def nbytes(self) -> int:
        return self._index.nbytes + sum(c.x.nbytes + c.y.nbytes for c in self.columns.values())


def _key(units: UInts, groups: Ints) -> UInts:
    return mixed(units) ^ mixed(groups.astype(np.uint64), salt=1)


def _longer(values: Floats, length: int) -> Floats:
    return np.concatenate((values, np.zeros(length - len(values))))
