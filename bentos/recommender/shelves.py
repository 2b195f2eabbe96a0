"""The best n of share × standing over a catalogue by categories, without looking at most of it.

Within a category everybody's order is the same, so it is laid out once: blocks of `BLOCK` items, best standing first. A
block's first item bounds the others from above and its last one from below. So a few products a block tell which blocks
can hold one of the best n, and only those are looked into. The answer is that of a full scan.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 32  # items
SHALLOW = 16  # blocks of a category that are looked at first


@dataclass(frozen=True, slots=True)
class _Blocks:
    """B blocks. category: intp [B]; first, last: float32 [B], -inf where a block is not full. goes_on: bool [B], a
    block of this category follows that is not among these. rows: int32 [B, BLOCK]; standing: the same shape, -inf
    beyond the last item of a category."""

    category: NDArray[np.intp]
    first: NDArray[np.float32]
    last: NDArray[np.float32]
    goes_on: NDArray[np.bool_]
    rows: NDArray[np.int32]
    standing: NDArray[np.float32]

    def take(self, keep: NDArray[np.bool_], goes_on: NDArray[np.bool_]) -> "_Blocks":
        return _Blocks(
            self.category[keep],
            self.first[keep],
            self.last[keep],
            goes_on[keep],
            self.rows[keep],
            self.standing[keep],
        )


class Shelves:
    """
    Args:
        category: int32 [N], each from 0; standing: float32 [N].
    """

    def __init__(self, category: NDArray[np.int32], standing: NDArray[np.float32]) -> None:
        order = np.lexsort((-standing, category)).astype(np.int32)  # stable: ties by row
        sizes = np.bincount(category)
        blocks = -(-sizes // BLOCK)  # of each category
        begins = np.cumsum(blocks) - blocks
        place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        to = np.repeat(begins * BLOCK, sizes) + place
        rows = np.zeros(blocks.sum() * BLOCK, np.int32)
        values = np.full(len(rows), -np.inf, np.float32)
        rows[to] = order
        values[to] = standing[order]
        rows, values = rows.reshape(-1, BLOCK), values.reshape(-1, BLOCK)
        depth = np.arange(len(rows)) - np.repeat(begins, blocks)
        of = np.repeat(np.arange(len(sizes)), blocks)
        nothing_follows = np.zeros(len(rows), np.bool_)
        self._all = _Blocks(of, values[:, 0].copy(), values[:, -1].copy(), nothing_follows, rows, values)
        self._shallow = self._all.take(depth < SHALLOW, (depth == SHALLOW - 1) & (blocks[of] > SHALLOW))

    def best(
        self, share: NDArray[np.float32], blocked: NDArray[np.bool_], n: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rows and scores of the n best that are not blocked, best first, ties by row.

        share: float32 [C], none below 0; blocked: bool [N].
        """
        if n <= 0 or not len(self._all.rows):
            return np.empty(0, np.int32), np.empty(0, np.float32)
        with np.errstate(invalid="ignore"):  # 0 × -inf beyond the end of a category: NaN is never among the best
            for blocks in (self._shallow, self._all):
                found = _best_among(blocks, share, blocked, n)
                if found is not None:
                    return found
        raise AssertionError("all blocks hold all items")


def _best_among(
    blocks: _Blocks, share: NDArray[np.float32], blocked: NDArray[np.bool_], n: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]] | None:
    """None: an item that is not in these blocks could be among the best."""
    factor = share[blocks.category]
    upper, lower = factor * blocks.first, factor * blocks.last
    wanted = n
    while True:
        least = _least(lower, -(-wanted // BLOCK))
        at = np.flatnonzero(upper >= least)
        if blocks.goes_on[at].any():
            return None
        rows = blocks.rows[at].ravel()
        scores = (factor[at, None] * blocks.standing[at]).ravel()
        there = scores >= max(least, np.finfo(np.float32).min)
        rows, scores = rows[there], scores[there]
        allowed = ~blocked[rows]
        rows, scores = rows[allowed], scores[allowed]
        if len(rows) >= n or least == -np.inf:
            break
        wanted = 2 * wanted + int(np.count_nonzero(~allowed))
    if len(rows) > n:
        among = scores >= -np.partition(-scores, n - 1)[n - 1]
        rows, scores = rows[among], scores[among]
    order = np.lexsort((rows, -scores))[:n]
    return rows[order], scores[order]


def _least(lower: NDArray[np.float32], full_blocks: int) -> np.float32:
    """A score that `full_blocks` blocks keep throughout; -inf where there are not so many full ones."""
    if full_blocks > len(lower):
        return np.float32(-np.inf)
    least = -np.partition(-lower, full_blocks - 1)[full_blocks - 1]
    return np.float32(-np.inf) if np.isnan(least) else np.float32(least)
