"""The item catalogue as aligned columns. N items; row i of every item array is item i."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.ids import IdIndex


@dataclass(slots=True)
class Flags:
    """Which items may not be shown, bool [N]. It changes by another array in its place, never within one: a stage sees
    all of a change, or none of it.
    """

    now: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """item_ids: N strings (an Arrow column behind a sequence, or a list). category: int32 [N] into `categories`.
    creator: int32 [N] into `creators`, -1 none. price: float32 [N], NaN unknown. published_us: int64 [N].
    """

    item_ids: Sequence[str]
    index: IdIndex
    category: NDArray[np.int32]
    categories: Sequence[str]
    creator: NDArray[np.int32]
    creators: Sequence[str]
    price: NDArray[np.float32]
    published_us: NDArray[np.int64]
    is_promoted: NDArray[np.bool_]
    flags: Flags

    @property
    def is_flagged(self) -> NDArray[np.bool_]:
        """bool [N], as of now."""
        return self.flags.now

    def __len__(self) -> int:
        return len(self.item_ids)
