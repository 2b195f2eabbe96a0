"""Indexes over item vectors that find what exact search finds: one way to make them, for training and benchmarks.

Exact up to as many items as serving searches exactly. Above that IVF over plain vectors (ADR 0016), probed as widely as
real queries need: what recall a number of probes gives depends on where the queries lie, so it is measured on queries.
"""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bentos.recommender.ann import EXACT_UP_TO
from contracts.errors import ArtifactError

MIN_RECALL = 0.99
TOP = 200  # neighbours over which recall is measured
TRAINED_ON = 40  # vectors a list
EXACT_CELLS = 1 << 24  # scores that are held at a time


@dataclass(frozen=True, slots=True)
class IndexReport:
    """kind: `flat`, `ivf`; recall: share of the exact top 200 that the index finds; nprobe: 0 where it has none."""

    kind: str
    recall_at_200: float
    nprobe: int


def build_index(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], seed: int, *, flat_up_to: int = EXACT_UP_TO
) -> tuple[Any, IndexReport]:
    """An inner-product index over `vectors` [N, D]: exact up to `flat_up_to`, above that IVF, probed as widely as
    recall@200 of 0.99 on `queries` [Q, D] needs.

    Raises:
        ArtifactError: that recall is out of reach.
    """
    n, dimension = vectors.shape
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if n <= flat_up_to:
        flat = faiss.IndexFlatIP(dimension)
        flat.add(vectors)
        return flat, IndexReport("flat", 1.0, 0)
    lists = int(2 ** np.round(np.log2(2 * np.sqrt(n))))
    index: Any = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed + 1  # 0 would be the library's own default
    sample = np.random.default_rng(seed).permutation(n)[: TRAINED_ON * lists]
    index.train(vectors[np.sort(sample)])
    index.add(vectors)
    exact = exact_top(vectors, queries, TOP)
    report, probes = IndexReport("ivf", 0.0, 0), 4
    while report.recall_at_200 < MIN_RECALL and report.nprobe < lists:
        index.nprobe = min(probes, lists)
        found = index.search(queries, exact.shape[1])[1]
        report = IndexReport("ivf", overlap(exact, found), index.nprobe)
        probes = max(probes + 1, int(probes * 1.25))
    if report.recall_at_200 < MIN_RECALL:
        raise ArtifactError(f"recall@200 of the index is {report.recall_at_200:.3f}, below {MIN_RECALL}")
    return index, report


def exact_top(vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """int64 [Q, min(k, N)]: rows of the greatest inner products, best first, by brute force in NumPy."""
    k = min(k, len(vectors))
    best = np.empty((len(queries), k), np.int64)
    step = max(1, EXACT_CELLS // max(1, len(vectors)))
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ vectors.T
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable")
        best[start : start + step] = np.take_along_axis(top, order, 1)
    return best


def overlap(exact: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Mean share of a row of `exact` that is in the same row of `found`."""
    return float(np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)]))
