"""Keys of 64 bits to row numbers, by whole arrays: sorted, with a small sorted annexe for what is new."""

import numpy as np
from numpy.typing import NDArray

UInts = NDArray[np.uint64]
Ints = NDArray[np.int64]

_LEAST = 1 << 15  # the annexe is merged when it is bigger than this and than an eighth of the rest
_ODD = np.uint64(0x9E3779B97F4A7C15)


def mixed(values: UInts, salt: int = 0) -> UInts:
    """A bijection of 64 bits whose every output bit depends on every input bit.

    Source: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
    """
    x = values + np.uint64((int(_ODD) * (salt + 1)) & 0xFFFF_FFFF_FFFF_FFFF)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Index:
    """Rows are numbered from 0 in the order in which their keys came. 16 bytes a key.

    Two keys that are one by chance: with a million of 64 bits, 3 in 100 million runs.
    """

    def __init__(self) -> None:
        self._keys: UInts = np.empty(0, np.uint64)
        self._rows: Ints = np.empty(0, np.int64)
        self._new_keys: UInts = np.empty(0, np.uint64)
        self._new_rows: Ints = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._keys) + len(self._new_keys)

    def find(self, keys: UInts) -> Ints:
        """Row of each key, -1 for one that is not there."""
        rows = _look_up(self._keys, self._rows, keys)
        if len(self._new_keys):
            rows = np.where(rows >= 0, rows, _look_up(self._new_keys, self._new_rows, keys))
        return rows

    def add(self, keys: UInts) -> Ints:
        """Row of each key, new ones numbered on; the same key twice in `keys` is one."""
        rows = self.find(keys)
        missing = rows < 0
        if not missing.any():
            return rows
        new, inverse = np.unique(keys[missing], return_inverse=True)
        numbers = np.arange(len(self), len(self) + len(new), dtype=np.int64)
        rows[missing] = numbers[inverse]
        at = np.searchsorted(self._new_keys, new)
        self._new_keys = np.insert(self._new_keys, at, new)
        self._new_rows = np.insert(self._new_rows, at, numbers)
        if len(self._new_keys) > max(_LEAST, len(self._keys) // 8):
            places = np.searchsorted(self._keys, self._new_keys)
            self._keys = np.insert(self._keys, places, self._new_keys)
            self._rows = np.insert(self._rows, places, self._new_rows)
            self._new_keys, self._new_rows = self._new_keys[:0], self._new_rows[:0]
        return rows

    def items(self) -> tuple[UInts, Ints]:
        """All keys, and their rows."""
        return np.concatenate((self._keys, self._new_keys)), np.concatenate((self._rows, self._new_rows))

    @classmethod
    def of(cls, keys: UInts) -> "Index":
        """Keys, each once; their rows are their places."""
        index = cls()
        order = np.argsort(keys)
        index._keys, index._rows = keys[order], order
        return index

    @property
    def nbytes(self) -> int:
        return 16 * len(self)


def _look_up(keys: UInts, rows: Ints, wanted: UInts) -> Ints:
    if not len(keys):
        return np.full(len(wanted), -1, np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: Ints = np.where(keys[at] == wanted, rows[at], -1)
    return found
