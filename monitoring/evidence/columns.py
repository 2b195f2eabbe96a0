"""Records as columns of numbers: what the tally counts. From Arrow tables of the logs, or straight from a simulation.

Units, requests and items are 64-bit hashes (of a log's strings) or any numbers that a simulation gives them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.routing import Unit
from contracts.serving import DEGRADATIONS
from features import duck
from monitoring.evidence.index import Ints, UInts

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

ARMS = ("candidate", "control", "champion", "shadow")
CANDIDATE, CONTROL, CHAMPION, SHADOW = range(4)
NO_RUNG = len(DEGRADATIONS)
VALUES_A_KEY = 1000  # a consumer may send anything as context: further values of a key belong to no slice


@dataclass(frozen=True)
class _Rows:
    """Aligned arrays; `slices` (context key → code of the value, -1 for none) too."""

    def __len__(self) -> int:
        return len(self.time_us)  # type: ignore[attr-defined]

    def where(self, keep: Bools | Ints) -> Self:
        return type(self)(**{name: _picked(values, keep) for name, values in vars(self).items()})

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        return cls(**{name: _concatenated([vars(p)[name] for p in parts]) for name in vars(parts[0])})


def _picked(values: Any, keep: Bools | Ints) -> Any:
    if isinstance(values, Ragged):
        return values.where(keep)
    return {k: v[keep] for k, v in values.items()} if isinstance(values, dict) else values[keep]


def _concatenated(values: list[Any]) -> Any:
    if isinstance(values[0], Ragged):
        return Ragged.joined(values)
    if isinstance(values[0], dict):
        return {k: np.concatenate([v[k] for v in values]) for k in values[0]}
    return np.concatenate(values)


@dataclass(frozen=True)
class Ragged:
    """A list for each row: `lengths`, and all of them one after the other in `flat`."""

    lengths: Ints
    flat: NDArray[np.uint32]

    def where(self, keep: Bools | Ints) -> "Ragged":
        rows = np.flatnonzero(keep) if keep.dtype == bool else keep
        starts = np.cumsum(self.lengths) - self.lengths
        lengths = self.lengths[rows]
        return Ragged(lengths, self.flat[positions(starts[rows], lengths)])

    @classmethod
    def joined(cls, parts: Sequence["Ragged"]) -> "Ragged":
        return cls(np.concatenate([p.lengths for p in parts]), np.concatenate([p.flat for p in parts]))


def positions(starts: Ints, lengths: Ints) -> Ints:
    """start, start + 1, … of each row, one row after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


@dataclass(frozen=True)
class Answers(_Rows):
    """Exposures, by assigned arm (an index into ARMS)."""

    time_us: Ints
    request: UInts
    unit: UInts
    arm: Ints
    rung: Ints  # index into DEGRADATIONS
    items: Ragged
    slices: dict[str, Ints] = field(default_factory=dict)


@dataclass(frozen=True)
class Calls(_Rows):
    """Attempts of a variant; those that were not made (`open`) and those of testers left out.

    ok: answered. over: ms, and infinite where it was late. correlation, overlap, shift: NaN where nothing was compared.
    """

    time_us: Ints
    request: UInts
    unit: UInts
    arm: Ints
    ok: Bools
    ms: Floats
    rung: Ints  # NO_RUNG unless ok
    n_items: Ints
    schema_ok: Bools
    score_min: Floats
    score_max: Floats
    correlation: Floats
    overlap: Floats
    shift: Floats
    slices: dict[str, Ints] = field(default_factory=dict)


@dataclass(frozen=True)
class Acts(_Rows):
    """Events. request is 0 and by_request False where the event names none. name: a code of the tally's."""

    time_us: Ints
    by_request: Bools
    request: UInts
    unit: UInts
    item: NDArray[np.uint32]
    name: Ints
    value: Floats


class Columns:
    """From tables to columns. One for each tally: codes of slice values are its own.

    Args:
        release: id of the release or experiment; arms: what its arms are called in `experiments`, candidate first.
        keys: of the context, to be sliced by. events: names of events; others are left out.
        by_request: the arm of an attempt is that of its request (experiments), not its variant (releases).
    """

    def __init__(
        self,
        release: str,
        arms: tuple[str, str],
        unit: Unit,
        keys: Sequence[str],
        events: Sequence[str],
        since_us: int,
        by_request: bool = False,
    ) -> None:
        self._by_request = by_request
        self._release = release
        self._arms = arms
        self._unit = unit
        self._events = list(events)
        self._since_us = since_us
        self.values: dict[str, dict[str, int]] = {key: {} for key in keys}
        self._db = duck.connect(threads=1, enable_external_access=False)

    def answers(self, table: pa.Table) -> Answers:
        """The arms' own, and the champion's; slices are not known from an exposure."""
        arm_name = _looked_up(table["experiments"], self._release)
        arm = np.full(len(table), -1, np.int64)
        arm[_equal(table["assigned"], "champion")] = CHAMPION
        for code, name in enumerate(self._arms):
            arm[_equal(arm_name, name)] = code
        keep = (arm >= 0) & (_numbers(table["timestamp_us"]) >= self._since_us)
        table, arm = table.filter(pa.array(keep)), arm[keep]
        items = _one(table["item_ids"])
        lengths = np.asarray(pc.fill_null(pc.list_value_length(items), 0)).astype(np.int64)
        return Answers(
            _numbers(table["timestamp_us"]),
            self._hashed(table["request_id"]),
            self._hashed(table["unit"]),
            arm,
            _coded(table["degradation"], DEGRADATIONS),
            Ragged(lengths, _short(self._hashed(items.flatten()))),
            {key: np.full(len(table), -1) for key in self.values},
        )

    def calls(self, table: pa.Table) -> tuple[Calls, dict[str, int]]:
        """And, of the shadow's that were answered, how many are which edge case."""
        keep = ~_equal(table["outcome"], "open") & ~_bools(table["forced"])
        if not self._by_request:
            keep &= _equal(table["release"], self._release)
        table = table.filter(pa.array(keep & (_numbers(table["timestamp_us"]) >= self._since_us)))
        shadow = _bools(table["shadow"])
        arm = _coded(table["variant"], ARMS[:3], CHAMPION)
        arm[shadow] = SHADOW
        ok = _equal(table["outcome"], "ok")
        ms = _floats(table["ms"])
        compared = _one(table["compared"])
        panel: dict[str, int] = {}
        for value in pc.value_counts(_one(table["panel"].filter(pa.array(shadow & ok))).flatten()).to_pylist():
            panel[value["values"]] = value["counts"]
        calls = Calls(
            _numbers(table["timestamp_us"]),
            self._hashed(table["request_id"]),
            self._hashed(table["unit"]),
            arm,
            ok,
            np.where(_equal(table["outcome"], "late"), np.inf, ms),
            _coded(table["degradation"], DEGRADATIONS, NO_RUNG),
            _numbers(table["n_items"]),
            _bools(table["schema_ok"]),
            _floats(table["score_min"]),
            _floats(table["score_max"]),
            _floats(pc.struct_field(compared, "correlation")),
            _floats(pc.struct_field(compared, "overlap")),
            _floats(pc.struct_field(compared, "shift")),
            {key: self._slice(table["context"], key) for key in self.values},
        )
        return calls, panel

    def contexts(self, table: pa.Table, keys: Sequence[str]) -> tuple[UInts, dict[str, Ints]]:
        """Requests in order, each once, with their slices: also of attempts that were not made."""
        table = table.filter(pa.array(~_bools(table["shadow"])))
        request, first = np.unique(self._hashed(table["request_id"]), return_index=True)
        return request, {key: self._slice(table["context"], key)[first] for key in keys}

    def acts(self, table: pa.Table) -> Acts:
        keep = np.isin(_coded(table["event"], self._events), range(len(self._events)))
        table = table.filter(pa.array(keep & (_numbers(table["timestamp_us"]) >= self._since_us)))
        unit = table["user_id"] if self._unit == "user" else _looked_up(table["context"], UNIT_KEYS[self._unit])
        request = table["request_id"]
        by_request = np.asarray(pc.fill_null(pc.not_equal(request, ""), False))
        return Acts(
            _numbers(table["timestamp_us"]),
            by_request,
            self._hashed(request),
            self._hashed(unit),
            _short(self._hashed(table["item_id"])),
            _coded(table["event"], self._events),
            np.nan_to_num(_floats(table["value"])),
        )

    def _hashed(self, strings: pa.Array | pa.ChunkedArray) -> UInts:
        if not len(strings):
            return np.empty(0, np.uint64)
        self._db.register("strings", pa.table({"s": strings}))
        try:
            found: UInts = self._db.execute("SELECT hash(s) AS h FROM strings").fetchnumpy()["h"]
            return found
        finally:
            self._db.unregister("strings")

    def _slice(self, context: pa.ChunkedArray, key: str) -> Ints:
        """Codes of the key's values, -1 where a context lacks it."""
        known = self.values[key]
        words = _one(_looked_up(context, key)).dictionary_encode()
        codes = np.full(len(words.dictionary) + 1, -1)
        for at, word in enumerate(words.dictionary.to_pylist()):
            if word not in known and len(known) < VALUES_A_KEY:
                known[word] = len(known)
            codes[at] = known.get(word, -1)
        return codes[np.asarray(pc.fill_null(words.indices, len(words.dictionary)))]


UNIT_KEYS: Mapping[str, str] = {"session": "session", "device": "device_id"}


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _looked_up(maps: pa.ChunkedArray, key: str) -> pa.ChunkedArray:
    return pc.map_lookup(maps, pa.scalar(key), "first")


def _equal(column: pa.ChunkedArray, word: str) -> Bools:
    return np.asarray(pc.fill_null(pc.equal(column, word), False))


def _coded(column: pa.ChunkedArray, words: Sequence[str], other: int = -1) -> Ints:
    """Index of each word, `other` for those that are not among `words`."""
    found = pc.index_in(column, pa.array(list(words), pa.string()))
    return np.asarray(pc.fill_null(found, other)).astype(np.int64)


def _numbers(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column).astype(np.int64)


def _bools(column: pa.ChunkedArray) -> Bools:
    return np.asarray(pc.fill_null(column, False))


def _floats(column: pa.Array | pa.ChunkedArray) -> Floats:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), np.nan))


def _short(hashes: UInts) -> NDArray[np.uint32]:
    """Of an item: 32 bits are enough within one slate."""
    return (hashes >> np.uint64(32)).astype(np.uint32)
