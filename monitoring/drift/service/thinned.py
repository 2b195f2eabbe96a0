"""One row of each user: what the tests of a window are made on.

Rows of one answer share everything of their user, and so do the answers of one user: twenty rows are no twenty
observations. A test that takes them as such finds drift where there is none: KS on all rows called
`log_user_tenure_days` drifted in 10 of 30 windows without drift. So of each user one row is drawn, and of
more than `limit` users so many, each as likely. Rows come batch by batch; memory is that of what is kept.
"""

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

UNITS = 50_000
_ROOM = 20_000  # rows of batches that wait until they are thinned together


@dataclass(slots=True)
class OnePerUser:
    """columns: those that are kept, where a batch has them. rows: seen so far; users: of them, how many are kept."""

    columns: tuple[str, ...]
    seed: int = 0
    limit: int = UNITS
    rows: int = 0
    _kept: list[pa.Table] = field(default_factory=list)
    _units: list[NDArray[np.uint64]] = field(default_factory=list)
    _keys: list[NDArray[np.float64]] = field(default_factory=list)
    _waiting: int = 0

    def add(self, batch: pa.Table) -> None:
        """batch: with `user_id` and any of the columns."""
        n = batch.num_rows
        self.rows += n
        if not n:
            return
        units = unit_of(batch["user_id"], self.seed)
        random = np.random.default_rng([self.seed, self.rows])
        keys = random.random(n)
        chosen = _first_of_each(units, keys)
        kept = [name for name in self.columns if name in batch.column_names]
        self._kept.append(batch.select(kept).take(pa.array(chosen)))
        self._units.append(units[chosen])
        self._keys.append(keys[chosen])
        self._waiting += len(chosen)
        if self._waiting > self.limit + _ROOM:
            self._thin()

    def table(self) -> pa.Table:
        """At most `limit` rows, in the order in which they came."""
        self._thin()
        if not self._kept:
            return pa.table({})
        return self._kept[0]

    @property
    def users(self) -> int:
        self._thin()
        return self._kept[0].num_rows if self._kept else 0

    def _thin(self) -> None:
        if len(self._kept) < 2 and self._waiting <= self.limit:
            return
        units, keys = np.concatenate(self._units), np.concatenate(self._keys)
        chosen = _first_of_each(units, keys)
        if len(chosen) > self.limit:  # hashes are uniform: the smallest are a fair draw of users
            chosen = chosen[np.argpartition(units[chosen], self.limit)[: self.limit]]
            chosen.sort()
        whole = pa.concat_tables(self._kept, promote_options="default")
        self._kept = [whole.take(pa.array(chosen)).combine_chunks()]
        self._units, self._keys, self._waiting = [units[chosen]], [keys[chosen]], len(chosen)


def one_per_user(table: pa.Table, columns: tuple[str, ...], *, seed: int = 0, limit: int = UNITS) -> pa.Table:
    sample = OnePerUser(columns, seed, limit)
    sample.add(table)
    return sample.table()


def unit_of(users: pa.Array | pa.ChunkedArray, seed: int = 0) -> NDArray[np.uint64]:
    """A number a row, the same for the same user; rows without a user are one."""
    coded = users.combine_chunks() if isinstance(users, pa.ChunkedArray) else users
    coded = pc.dictionary_encode(coded, null_encoding="encode")
    names = coded.dictionary.to_pylist()
    salt = seed.to_bytes(8, "little", signed=True)
    hashed = np.array([_hash((name or "").encode(), salt) for name in names], np.uint64)
    return hashed[coded.indices.to_numpy(zero_copy_only=False)]


def _hash(name: bytes, salt: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=8, salt=salt).digest(), "little")


def _first_of_each(units: NDArray[np.uint64], keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """Where the smallest key of each unit stands, ascending."""
    order = np.lexsort((keys, units))
    sorted_units = units[order]
    first = np.ones(len(order), bool)
    first[1:] = sorted_units[1:] != sorted_units[:-1]
    return np.sort(order[first])
