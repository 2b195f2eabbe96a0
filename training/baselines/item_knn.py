"""Nearest items over a sparse matrix: item-item similarities of which each item keeps the largest few.

For `item_knn` the matrix holds BM25 weights (Robertson & Zaragoza 2009): an item is a document, its users are the
words, so that a user who buys everything says little about any item. Nothing dense: it runs where EASE does not.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, vstack

K1 = 1.2
B = 0.75
NEIGHBOURS = 100
BLOCK = 512  # rows of similarities that are held at once


def bm25(met: csr_matrix, k1: float = K1, b: float = B) -> csr_matrix:
    """float32 [U, N]. met: [U, N], how often (or 1)."""
    n_items = met.shape[1]
    per_user = np.diff(met.indptr)
    rarity = np.log(max(n_items, 1)) - np.log1p(per_user)
    lengths = np.asarray(met.sum(axis=0), np.float64).ravel()
    norm = 1 - b + b * lengths / max(lengths.mean() if n_items else 1.0, 1e-12)
    weighted = met.astype(np.float32).copy()
    users = np.repeat(np.arange(met.shape[0]), per_user)
    weighted.data = (met.data * (k1 + 1) / (k1 * norm[met.indices] + met.data) * rarity[users]).astype(np.float32)
    return weighted


def cosine(matrix: csr_matrix) -> csr_matrix:
    """Columns of length 1, so that `neighbours` finds cosines."""
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=0), np.float64).ravel())
    return csr_matrix(matrix @ diags(1 / np.maximum(lengths, 1e-9)).astype(np.float32))


def neighbours(weighted: csr_matrix, k: int = NEIGHBOURS) -> csr_matrix:
    """float32 [N, N], `weighted.T @ weighted` without its diagonal, the k largest of each row (ties: lower item)."""
    turned = csr_matrix(weighted.T)
    blocks = []
    for start in range(0, turned.shape[0], BLOCK):
        block = csr_matrix(turned[start : start + BLOCK] @ weighted)
        block.sort_indices()
        rows: list[NDArray[Any]] = []
        for row in range(block.shape[0]):
            at = np.arange(block.indptr[row], block.indptr[row + 1])
            at = at[(block.indices[at] != start + row) & (block.data[at] > 0)]
            if len(at) > k:
                at = np.sort(at[np.argsort(-block.data[at], kind="stable")[:k]])
            rows.append(at)
        indptr = np.concatenate([[0], np.cumsum([len(at) for at in rows])])
        kept = np.concatenate(rows) if rows else np.empty(0, np.int64)
        blocks.append(csr_matrix((block.data[kept], block.indices[kept], indptr), shape=block.shape))
    return csr_matrix(vstack(blocks)) if blocks else csr_matrix(weighted.shape[::-1], dtype=np.float32)


def fit(met: csr_matrix) -> csr_matrix:
    """Similarities float32 [N, N]; scores are `met @` them."""
    return neighbours(bm25(met))
