"""The items nearest to a vector, by exact search or by a FAISS index, with the exclusion before the quota."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bentos.recommender.top import top
from bentos.recommender.types import SourceResult

EXACT_UP_TO = 20_000  # items; below, one matrix-vector product is faster than an index and never misses
WIDER = 8  # times as many lists are read where most of what is near is blocked


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
        """The n best allowed items for a vector float32 [D]; blocked: bool [≥ N], what is beyond N has no vector."""
        blocked = blocked[: len(self._vectors)]
        if self._index is None:
            return self._exact(vector, blocked, n)
        # Little is blocked as a rule, so a few more are asked for and looked at afterwards: a bitmap over the catalogue
        # for the index to look at costs more than the search.
        found = self._found(vector, n + n // 8 + 8)
        allowed = np.flatnonzero(~blocked.take(found.items))[:n]
        if len(allowed) < n:
            found = self._found(vector, n, ~blocked)
            if len(found.items) < n:
                return self._exact(vector, blocked, n)
            return found
        return SourceResult(found.items.take(allowed), found.scores.take(allowed))

    def _exact(self, vector: NDArray[np.float32], blocked: NDArray[np.bool_], n: int) -> SourceResult:
        scores = self._vectors @ vector
        scores[blocked] = -np.inf
        best = top(scores, n)
        return SourceResult(best, scores[best])

    def _found(self, vector: NDArray[np.float32], n: int, among: NDArray[np.bool_] | None = None) -> SourceResult:
        """What the index finds, best first, ties by row; among: bool [N], those that count."""
        assert self._index is not None  # noqa: S101 - for the type checker
        parameters = None if among is None else _wider(self._index, among)
        scores, items = self._index.search(vector[None, :], min(n, len(self._vectors)), params=parameters)
        rows, values = items[0].astype(np.int32), scores[0]
        if len(rows) and rows[-1] < 0:  # fewer than were asked for: the places left over come last
            there = rows >= 0
            rows, values = rows[there], values[there]
        if (values[1:] == values[:-1]).any():
            order = np.lexsort((rows, -values))
            rows, values = rows[order], values[order]
        return SourceResult(rows, values)


def _wider(index: Any, among: NDArray[np.bool_]) -> Any:
    """Search parameters over some items only. They replace those set on the index, so its own are handed on."""
    bits = np.packbits(among, bitorder="little")
    selector = faiss.IDSelectorBitmap(len(among), faiss.swig_ptr(bits))
    parameters: Any
    if isinstance(index, faiss.IndexIVF):
        parameters = faiss.SearchParametersIVF()
        parameters.nprobe = min(WIDER * index.nprobe, index.nlist)
    elif isinstance(index, faiss.IndexHNSW):
        parameters = faiss.SearchParametersHNSW()  # type: ignore[attr-defined]
        parameters.efSearch = index.hnsw.efSearch
    else:
        parameters = faiss.SearchParameters()
    parameters.sel = selector
    parameters.bits = bits  # the selector does not keep them alive
    return parameters
