"""Id strings to row numbers, over memory-mapped arrays so that worker processes share one copy."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.errors import DataError


class IdIndex:
    """Sorted UTF-8 ids with the row of each. `lookup` is a binary search: about 2 µs at a million ids."""

    def __init__(self, sorted_ids: NDArray[np.bytes_], rows: NDArray[np.int32]) -> None:
        self._ids = sorted_ids
        self._rows = rows

    @classmethod
    def build(cls, ids: Sequence[str]) -> "IdIndex":
        """Index `ids` by position.

        Raises:
            DataError: an id twice, or one that ends in NUL (fixed-width bytes cannot keep it).
        """
        encoded = [i.encode() for i in ids]
        if any(e.endswith(b"\0") for e in encoded):
            raise DataError("an id ends in a NUL character")
        array = np.array(encoded, dtype=np.bytes_) if encoded else np.empty(0, dtype="S1")
        order = np.argsort(array, kind="stable").astype(np.int32)
        array = array[order]
        if len(array) > 1 and (array[1:] == array[:-1]).any():
            raise DataError(f"id {array[1:][array[1:] == array[:-1]][0]!r} stands twice in an index")
        return cls(array, order)

    def save(self, folder: Path, name: str) -> list[str]:
        """Write `{name}_ids.npy` and `{name}_rows.npy`; returns the file names."""
        np.save(folder / f"{name}_ids.npy", self._ids)
        np.save(folder / f"{name}_rows.npy", self._rows)
        return [f"{name}_ids.npy", f"{name}_rows.npy"]

    @classmethod
    def open(cls, folder: Path, name: str) -> "IdIndex":
        return cls(
            # As plain arrays over the map: indexing a memmap object costs microseconds each time.
            np.asarray(np.load(folder / f"{name}_ids.npy", mmap_mode="r")),
            np.asarray(np.load(folder / f"{name}_rows.npy", mmap_mode="r")),
        )

    def __len__(self) -> int:
        return len(self._ids)

    def lookup(self, id_: str) -> int:
        """Row of `id_`, or -1. A fifth of what `lookup_many` of one id costs."""
        encoded = id_.encode(errors="replace")
        dtype = self._ids.dtype
        if len(encoded) > dtype.itemsize or encoded.endswith(b"\0"):  # see `lookup_many`
            return -1
        at = int(self._ids.searchsorted(np.array(encoded, dtype=dtype)))
        return int(self._rows[at]) if at < len(self._ids) and self._ids[at] == encoded else -1

    def ids_of(self, rows: NDArray[np.integer[Any]]) -> list[str]:
        """Ids by row, all of which are there. A pass over the index: for few rows, now and then."""
        wanted = np.zeros(len(self), np.bool_)
        wanted[rows] = True
        at = np.flatnonzero(wanted[self._rows])
        found = dict(zip(self._rows[at].tolist(), self._ids[at].tolist(), strict=True))
        return [found[row].decode() for row in rows.tolist()]

    def lookup_many(self, ids: Sequence[str]) -> NDArray[np.int32]:
        """Rows of `ids`, int32 [len(ids)], -1 where unknown."""
        if not len(self._ids) or not len(ids):
            return np.full(len(ids), -1, dtype=np.int32)
        encoded = [i.encode(errors="replace") for i in ids]
        wanted = np.array(encoded, dtype=self._ids.dtype)  # the same width: no copy of the index; longer ids are cut
        at = np.searchsorted(self._ids, wanted)
        at[at == len(self._ids)] = 0
        rows = np.where(self._ids[at] == wanted, self._rows[at], -1).astype(np.int32)
        width = self._ids.dtype.itemsize
        if max(map(len, encoded)) > width or b"\0" in b"".join(encoded):
            for i, id_ in enumerate(encoded):
                if len(id_) > width or id_.endswith(b"\0"):  # fixed-width bytes cannot tell these from shorter ids
                    rows[i] = -1
        return rows


class GrownIndex(IdIndex):
    """An index and ids that came after it, as the rows from `len(base)` on."""

    def __init__(self, base: IdIndex, more: Sequence[str]) -> None:
        super().__init__(base._ids, base._rows)
        self._more = {id_: row for row, id_ in enumerate(more, start=len(base))}

    def __len__(self) -> int:
        return super().__len__() + len(self._more)

    def lookup(self, id_: str) -> int:
        row = super().lookup(id_)
        return row if row >= 0 else self._more.get(id_, -1)

    def lookup_many(self, ids: Sequence[str]) -> NDArray[np.int32]:
        rows = super().lookup_many(ids)
        for at in np.flatnonzero(rows < 0).tolist():
            rows[at] = self._more.get(ids[at], -1)
        return rows


def ids_at(ids: Sequence[str], rows: NDArray[np.int32]) -> list[str]:
    """The ids of `rows`, none below 0. A sequence that has a `take` of its own hands out many for a fraction of what
    each costs alone.
    """
    take = getattr(ids, "take", None)
    if take is not None:
        taken: list[str] = take(rows)
        return taken
    return [ids[row] for row in rows.tolist()]


class PackedIds(msgspec.Struct, frozen=True):
    """Many ids as a string column has them: UTF-8 without gaps, and where each begins, int32 [n + 1]. To make and
    encode 2,000 of 200,000 takes 0.14 ms of CPU as Python strings, 0.06 so.
    """

    starts: bytes
    text: bytes

    @classmethod
    def of(cls, ids: Sequence[str]) -> "PackedIds":
        encoded = [id_.encode() for id_ in ids]
        starts = np.zeros(len(ids) + 1, np.int32)
        np.cumsum([len(e) for e in encoded], out=starts[1:])
        return cls(starts.tobytes(), b"".join(encoded))

    def unpacked(self) -> list[str]:
        starts = np.frombuffer(self.starts, np.int32).tolist()
        return [self.text[begin:end].decode() for begin, end in pairwise(starts)]


def packed_at(ids: Sequence[str], rows: NDArray[np.int32]) -> PackedIds:
    """`ids_at`, packed; a sequence may have a `pack` of its own."""
    pack = getattr(ids, "pack", None)
    packed: PackedIds = PackedIds.of(ids_at(ids, rows)) if pack is None else pack(rows)
    return packed
