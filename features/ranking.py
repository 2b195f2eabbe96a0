"""The rows that rankers read: one definition for training and serving. K candidates, N items, F columns.

A row is float32; a categorical column holds its index as a float (exact up to 2**24) and the model casts it.
Columns that depend on the item alone are computed once for the whole catalogue (`item_block`) and gathered.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.catalogue import Catalogue


class Column(msgspec.Struct, frozen=True):
    name: str
    kind: Literal["dense", "categorical"] = "dense"
    size: int = 0  # number of values of a categorical column


class RowSchema(msgspec.Struct, frozen=True):
    columns: tuple[Column, ...]

    @property
    def signature(self) -> str:
        """SHA-256 over the ordered columns: a model and the code that feeds it must agree."""
        return hashlib.sha256(msgspec.json.encode(self.columns)).hexdigest()


def row_schema(catalogue: Catalogue) -> RowSchema:
    raise NotImplementedError


def item_block(
    catalogue: Catalogue, item_features: Mapping[str, NDArray[np.float32]], now_us: int
) -> NDArray[np.float32]:
    """Item-only columns, float32 [N, Fi], in the order of `row_schema`'s item columns."""
    raise NotImplementedError


def rows(
    *,
    items: NDArray[np.int32],
    retrieval: NDArray[np.float32],
    by_source: NDArray[np.float32],
    history: NDArray[np.int32],
    history_age_h: NDArray[np.float32],
    features: Mapping[str, Any],
    context: Mapping[str, str],
    now_us: int,
    catalogue: Catalogue,
    block: NDArray[np.float32],
    item_embeddings: NDArray[np.float32],
) -> NDArray[np.float32]:
    """float32 [K, F] in the order of `row_schema`. No NaN: an unknown is its default."""
    raise NotImplementedError
