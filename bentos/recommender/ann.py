"""The items nearest to a vector, by exact search or by a FAISS index, with the exclusion before the quota."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bentos.recommender.top import top
from bentos.recommender.types import SourceResult

EXACT_UP_TO = 20_000  # items; below, one matrix-vector product is faster than an index and never misses


class NearestItems:
    """Inner-product search over vectors float32 [N, D], row i is item i. `index`: over the same rows, or None.

    The index is used above `exact_up_to` items; search is in one thread (the process-wide setting of FAISS).
    """

    def __init__(self, vectors: NDArray[np.float32], index: Any | None = None, exact_up_to: int = EXACT_UP_TO) -> None:
        if index is not None and (index.ntotal, index.d) != vectors.shape:
            raise ValueError(f"index holds {index.ntotal} × {index.d}, the vectors are {vectors.shape}")
        self._vectors = vectors
        self._owner = index  # a downcast view does not keep the index alive
        self._index = None if index is None or len(vectors) <= exact_up_to else faiss.downcast_index(index)

    def search(self, vector: NDArray[np.float32], blocked: NDArray[np.bool_], n: int) -> SourceResult:
        """The n best allowed items for a vector float32 [D]; blocked: bool [N]."""
        if self._index is None:
            scores = self._vectors @ vector
            scores[blocked] = -np.inf
            best = top(scores, n)
            return SourceResult(best, scores[best])
        allowed = np.packbits(~blocked, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(blocked), faiss.swig_ptr(allowed))
        scores, items = self._index.search(vector[None, :], n, params=self._parameters(selector))
        found = items[0] >= 0
        rows, values = items[0][found].astype(np.int32), scores[0][found]
        order = np.lexsort((rows, -values))
        return SourceResult(rows[order], values[order])

    def _parameters(self, selector: Any) -> Any:
        """Search parameters replace those set on the index, so its own are handed on."""
        parameters: Any
        if isinstance(self._index, faiss.IndexIVF):
            parameters = faiss.SearchParametersIVF()
            parameters.nprobe = self._index.nprobe
        elif isinstance(self._index, faiss.IndexHNSW):
            parameters = faiss.SearchParametersHNSW()  # type: ignore[attr-defined]
            parameters.efSearch = self._index.hnsw.efSearch
        else:
            parameters = faiss.SearchParameters()
        parameters.sel = selector
        return parameters
