"""The item side of the ranker's rows: the bundle's item features, overwritten by the newest snapshot of the store."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contracts.catalogue import Catalogue
from contracts.exposures import FeatureUsed
from features.online.base import ItemSnapshot
from features.ranking import ItemBlock, item_block
from features.resolve import resolve_items, stale_items

WALL_STEP_US = 60_000_000  # on the wall clock item ages move on once a minute


@dataclass(frozen=True, slots=True)
class ItemView:
    """The item side as of one moment. stale: features that are too old and stand at their defaults. source: version of
    the snapshot that they come from, and of how many items the catalogue was when it was read."""

    moment_us: int
    block: ItemBlock
    stale: tuple[str, ...]
    used: tuple[FeatureUsed, ...]
    source: tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Columns:
    """What is known, before TTLs: of the snapshot, and over it what the stream has made of some of it since."""

    version: str
    columns: Mapping[str, NDArray[np.float32]]
    timestamps_us: Mapping[str, int]
    n_items: int = 0  # of the catalogue that the snapshot was read for: items that came later are not in `columns`
    live: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    live_us: int = 0

    @property
    def all(self) -> Mapping[str, NDArray[np.float32]]:
        return {**self.columns, **self.live}

    @property
    def stamps_us(self) -> Mapping[str, int]:
        return {**self.timestamps_us, **dict.fromkeys(self.live, self.live_us)}


class ItemTable:
    """One view for all requests of a moment: a whole pass over the catalogue when the moment or the features change.

    `at` belongs to the compute thread. `set` may run on any thread: it does its work first and swaps in one step.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        columns: Mapping[str, NDArray[np.float32]],
        timestamp_us: int,
        *,
        fixed_clock: bool,
    ) -> None:
        self._catalogue = catalogue
        self._step_us = 1 if fixed_clock else WALL_STEP_US
        self._now: tuple[_Columns, ItemView | None] = (
            _Columns("", dict(columns), dict.fromkeys(columns, timestamp_us)),
            None,
        )

    @property
    def source(self) -> tuple[str, int]:
        """Version of the snapshot in use, empty before the first; and how many items it was read for."""
        return self._now[0].version, self._now[0].n_items

    def stale_at(self, now_us: int) -> tuple[str, ...]:
        """Features that are too old at that moment; cheap, on any thread."""
        return stale_items(self._now[0].stamps_us, now_us)

    @property
    def snapshot(self) -> tuple[Mapping[str, NDArray[np.float32]], Mapping[str, int]]:
        """Columns and moments of the snapshot, without what the stream has made of them."""
        known = self._now[0]
        return known.columns, known.timestamps_us

    def over(
        self, catalogue: Catalogue, now_us: int, live: Mapping[str, NDArray[np.float32]], live_us: int
    ) -> "ItemTable":
        """The snapshot's features over a catalogue that may have more items, and what the stream has made of them."""
        other = copy.copy(self)
        other._catalogue = catalogue
        known = self._now[0]
        new = len(catalogue) - len(self._catalogue)
        columns = {
            # Vectors are no columns of rows, and too big to be copied.
            name: c if c.ndim > 1 else np.concatenate([c, np.full(new, np.nan, np.float32)])
            for name, c in known.columns.items()
        }
        longer = _Columns(known.version, columns, known.timestamps_us, known.n_items, live, live_us)
        other._now = longer, other._view(longer, now_us - now_us % self._step_us)
        return other

    def set(self, snapshot: ItemSnapshot, now_us: int) -> None:
        """Overwrite the snapshot's columns. Items that it does not know keep their defaults (NaN)."""
        known = self._now[0]
        rows = self._catalogue.index.lookup_many(list(snapshot.item_ids))
        ours = rows >= 0
        columns = dict(known.columns)
        for name, values in snapshot.columns.items():
            columns[name] = np.full((len(self._catalogue), *values.shape[1:]), np.nan, np.float32)
            columns[name][rows[ours]] = values[ours]
        stamps = {name: snapshot.timestamps_us.get(name, 0) for name in snapshot.columns}
        stamps = {**known.timestamps_us, **stamps}
        fresh = _Columns(snapshot.version, columns, stamps, len(self._catalogue), known.live, known.live_us)
        self._now = fresh, self._view(fresh, now_us - now_us % self._step_us)

    def at(self, now_us: int) -> ItemView:
        known, view = self._now
        moment = now_us - now_us % self._step_us
        if view is None or view.moment_us != moment:
            view = self._view(known, moment)
            if self._now[0] is known:  # else a snapshot came in between, with a view of its own
                self._now = known, view
        return view

    def _view(self, known: _Columns, moment_us: int) -> ItemView:
        columns = known.all
        resolved = resolve_items(columns, known.stamps_us, len(self._catalogue), moment_us)
        block = item_block(self._catalogue, {**columns, **resolved.columns}, moment_us)
        return ItemView(moment_us, block, resolved.stale, resolved.used, (known.version, known.n_items))
