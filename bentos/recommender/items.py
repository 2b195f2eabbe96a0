"""The item side of the ranker's rows: the bundle's item features, overwritten by the newest snapshot of the store."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from contracts.catalogue import Catalogue
from contracts.exposures import FeatureUsed
from features.online.base import ItemSnapshot
from features.ranking import ItemBlock, item_block
from features.resolve import resolve_items

WALL_STEP_US = 60_000_000  # on the wall clock item ages move on once a minute


class ItemTable:
    """One block for all requests of a moment; a whole pass over the catalogue when the moment or the features change.

    Belongs to the compute thread.
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
        self._columns = dict(columns)
        self._timestamps_us = dict.fromkeys(columns, timestamp_us)
        self._step_us = 1 if fixed_clock else WALL_STEP_US
        self._block: tuple[int, ItemBlock] | None = None
        self.version = ""
        self.stale: tuple[str, ...] = ()
        self.used: tuple[FeatureUsed, ...] = ()

    def set(self, snapshot: ItemSnapshot) -> None:
        """Overwrite the snapshot's columns. Items that it does not know keep their defaults (NaN)."""
        rows = self._catalogue.index.lookup_many(list(snapshot.item_ids))
        known = rows >= 0
        for name, values in snapshot.columns.items():
            column = np.full(len(self._catalogue), np.nan, np.float32)
            column[rows[known]] = values[known]
            self._columns[name] = column
            self._timestamps_us[name] = snapshot.timestamps_us.get(name, 0)
        self.version = snapshot.version
        self._block = None

    def block(self, now_us: int) -> ItemBlock:
        moment = now_us - now_us % self._step_us
        if self._block is None or self._block[0] != moment:
            resolved = resolve_items(self._columns, self._timestamps_us, len(self._catalogue), moment)
            self.stale, self.used = resolved.stale, resolved.used
            self._block = moment, item_block(self._catalogue, {**self._columns, **resolved.columns}, moment)
        return self._block[1]
