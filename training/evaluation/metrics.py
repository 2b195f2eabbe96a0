"""Ranking and calibration metrics, one value a user where there is one. NumPy only.

Shapes: U users, L places of a list, T targets in all. A list is padded with -1; a target counts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error. n: what it is a mean over. With n < 2 the error is not known: NaN."""

    value: float
    se: float
    n: int

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Estimate":
        n = len(values)
        if n == 0:
            return cls(float("nan"), float("nan"), 0)
        se = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
        return cls(float(values.mean()), se, n)


@dataclass(frozen=True, slots=True)
class Targets:
    """What each user should have been shown, CSR: the items of user u are items[indptr[u] : indptr[u + 1]], sorted."""

    indptr: NDArray[np.int64]
    items: NDArray[np.int64]

    @classmethod
    def of(cls, users: NDArray[np.int64], items: NDArray[np.int64], n_users: int) -> "Targets":
        """From pairs (user position, item), in any order, repeats allowed."""
        order = np.lexsort((items, users))
        users, items = users[order], items[order]
        first = np.ones(len(users), bool)
        first[1:] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
        users, items = users[first], items[first]
        indptr = np.zeros(n_users + 1, np.int64)
        np.cumsum(np.bincount(users, minlength=n_users), out=indptr[1:])
        return cls(indptr, items)

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.diff(self.indptr)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def take(self, users: NDArray[np.int64]) -> "Targets":
        parts = [self.items[self.indptr[u] : self.indptr[u + 1]] for u in users]
        indptr = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(p) for p in parts], out=indptr[1:])
        return Targets(indptr, np.concatenate(parts) if parts else np.empty(0, np.int64))


def pad(lists: Sequence[Integers], length: int) -> NDArray[np.int64]:
    """int64 [U, length], the first `length` of each list, -1 after its end."""
    out = np.full((len(lists), length), -1, np.int64)
    for row, items in enumerate(lists):
        head = items[:length]
        out[row, : len(head)] = head
    return out


def hits(lists: NDArray[np.int64], targets: Targets) -> NDArray[np.bool_]:
    """bool [U, L]: is the item in that place a target of that user."""
    users = np.repeat(np.arange(len(targets)), targets.counts)
    span = 1 + max(int(lists.max(initial=0)), int(targets.items.max(initial=0)))
    wanted = users * span + targets.items
    asked = np.arange(len(lists))[:, None] * span + lists
    return np.isin(asked, wanted) & (lists >= 0)


def ndcg(hit: NDArray[np.bool_], counts: NDArray[np.int64], k: int = 10) -> NDArray[np.float64]:
    """Binary gain, discount 1/log2(place + 1); the ideal has min(k, targets) hits. [U]"""
    discount = 1 / np.log2(np.arange(2, k + 2))
    gained = np.asarray(hit[:, :k] @ discount[: hit.shape[1]])
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(counts, k)]
    return np.asarray(np.divide(gained, ideal, out=np.zeros(len(hit)), where=ideal > 0))


def recall(hit: NDArray[np.bool_], counts: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Hits in the first k / number of targets. [U]"""
    return np.asarray(hit[:, :k].sum(axis=1) / np.maximum(counts, 1))


def hit_rate(hit: NDArray[np.bool_], k: int = 10) -> NDArray[np.float64]:
    return np.asarray(hit[:, :k].any(axis=1), np.float64)


def reciprocal_rank(hit: NDArray[np.bool_], k: int = 10) -> NDArray[np.float64]:
    """1 / place of the first hit within the first k, else 0. [U]"""
    head = hit[:, :k]
    if not head.shape[1]:
        return np.zeros(len(hit))
    return np.asarray(np.where(head.any(axis=1), 1 / (head.argmax(axis=1) + 1), 0.0))


def average_precision(hit: NDArray[np.bool_], counts: NDArray[np.int64], k: int = 10) -> NDArray[np.float64]:
    """Σ over hits of precision at that place / min(k, targets). [U]"""
    head = hit[:, :k]
    precision = np.cumsum(head, axis=1) / np.arange(1, head.shape[1] + 1)
    return np.asarray((precision * head).sum(axis=1) / np.maximum(np.minimum(counts, k), 1))


def coverage(lists: NDArray[np.int64], n_items: int, k: int = 10) -> Estimate:
    """Share of the catalogue that stands in somebody's first k. Its error: the jackknife over users."""
    head = lists[:, :k]
    n = len(head)
    shown, places = np.unique(head[head >= 0], return_inverse=True)
    owners = np.broadcast_to(np.arange(n)[:, None], head.shape)[head >= 0]
    # Leaving one user out loses exactly the items that nobody else was shown.
    showings = np.bincount(places, minlength=len(shown))
    alone = np.bincount(owners[showings[places] == 1], minlength=n) / max(n_items, 1)
    value = len(shown) / max(n_items, 1)
    if n < 2:
        return Estimate(value, float("nan"), n)
    return Estimate(value, float(np.sqrt((n - 1) / n * ((alone - alone.mean()) ** 2).sum())), n)


def per_user(lists: NDArray[np.int64], targets: Targets, k: int = 10) -> dict[str, NDArray[np.float64]]:
    """The metrics of the protocol on lists whose first k places are the slate."""
    hit = hits(lists[:, :k], targets)
    counts = targets.counts
    return {
        f"ndcg@{k}": ndcg(hit, counts, k),
        f"recall@{k}": recall(hit, counts, k),
        f"hit@{k}": hit_rate(hit, k),
        f"mrr@{k}": reciprocal_rank(hit, k),
        f"map@{k}": average_precision(hit, counts, k),
    }


def auc(scores: Floats, labels: Integers) -> float:
    """Area under the ROC curve, ties count a half; NaN with one class only."""
    positives = int((labels > 0).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2  # ranks from 1, ties share their mean
    return float((mean_rank[inverse][labels > 0].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auc_se(area: float, positives: int, negatives: int) -> float:
    """Standard error of an AUC over independent rows (Hanley & McNeil, Radiology 1982); NaN with one class only."""
    if not positives or not negatives:
        return float("nan")
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (one - area**2) + (negatives - 1) * (two - area**2)
    return float(np.sqrt(max(spread, 0.0) / (positives * negatives)))


def log_loss(
    probabilities: Floats,
    labels: Integers,
    weights: Floats | None = None,
) -> float:
    p = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    loss = -np.where(labels > 0, np.log(p), np.log1p(-p))
    return float(np.average(loss, weights=weights))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Bins of equal count: mean prediction, share of positives and rows in each; ece: Σ |gap| × share of rows."""

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    count: NDArray[np.int64]
    ece: float


def calibration(probabilities: Floats, labels: Integers, bins: int = 15) -> Calibration:
    if not len(probabilities):
        empty = np.empty(0)
        return Calibration(empty, empty, np.empty(0, np.int64), float("nan"))
    parts = np.array_split(np.argsort(probabilities, kind="stable"), min(bins, len(probabilities)))
    predicted = np.array([probabilities[p].mean(dtype=np.float64) for p in parts])
    observed = np.array([labels[p].mean(dtype=np.float64) for p in parts])
    count = np.array([len(p) for p in parts])
    return Calibration(predicted, observed, count, float((np.abs(predicted - observed) * count).sum() / count.sum()))
