"""The item catalogue as aligned columns. N items; row i of every item array is item i."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.ids import IdIndex


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
    is_flagged: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.item_ids)
