"""Means of two windows compared cell by cell (positions, score buckets, slices), and all cells judged as one.

z² of each cell's difference, summed: χ² with as many degrees of freedom as cells. The variance is that of both sides
together, as if nothing had changed: a window's own, where a cell has a handful of clicks, is too small too often.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitoring.drift.base import CannotJudge, Codes, Columns, Finding, Floats

LEAST_IN_CELL = 100  # rows a side; a cell with fewer is left out
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Cells:
    """cell: of each row, −1 for none. y: what is averaged; NaN: unknown, left out."""

    cell: Codes
    y: Floats

    def sums(self, cells: int) -> tuple[Floats, Floats, Floats]:
        """Rows, sum and sum of squares. Shape (cells,) each."""
        there = (self.cell >= 0) & ~np.isnan(self.y)
        cell, y = self.cell[there], self.y[there]
        n, sums, squares = (
            np.bincount(cell, w, minlength=cells).astype(np.float64) for w in (np.ones_like(y), y, y * y)
        )
        return n, sums, squares


def compare_cells(reference: Cells, current: Cells, what: str) -> Finding:
    """effect: root of (χ² − df) (n + m) / (n m): root mean square difference in standard deviations, less chance."""
    from scipy.stats import chi2

    cells = int(max(reference.cell.max(initial=-1), current.cell.max(initial=-1))) + 1
    (n, x, xx), (m, y, yy) = reference.sums(cells), current.sums(cells)
    if not n.sum() or not m.sum():
        raise CannotJudge(f"no label is known in the {'current' if n.sum() else 'reference'}")
    with np.errstate(invalid="ignore", divide="ignore"):
        both = (x + y) / (n + m)
        variance = ((xx + yy) / (n + m) - both**2) * (1 / n + 1 / m)
        z = (y / m - x / n) / np.sqrt(variance)
    judged = np.flatnonzero((n >= LEAST_IN_CELL) & (m >= LEAST_IN_CELL) & (variance > 1e-15))
    if not len(judged):
        raise CannotJudge(f"no {what} has {LEAST_IN_CELL} labelled rows on both sides, with labels that vary")
    statistic, df = float((z[judged] ** 2).sum()), len(judged)
    rows = n[judged].sum() * m[judged].sum() / (n[judged].sum() + m[judged].sum())
    worst = judged[np.argsort(-np.abs(z[judged]), kind="stable")][:SHOWN]
    details = {
        "cell": what,
        "cells": df,
        "moved": [
            {
                "category": int(c),
                "reference": float(x[c] / n[c]),
                "current": float(y[c] / m[c]),
                "z": float(z[c]),
                "rows": int(m[c]),
            }
            for c in worst
        ],
    }
    effect = math.sqrt(max(statistic - df, 0) / rows)
    n_used = int(n[judged].sum()), int(m[judged].sum())
    return Finding(statistic, float(chi2.sf(statistic, df)), effect, details, n_used)


def buckets(reference: Floats, current: Floats, count: int = 10) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The bucket of each score, by quantiles of the reference; −1 where it is missing."""
    there = reference[np.isfinite(reference)]
    if not len(there):
        raise CannotJudge("no score of the reference is a number")
    edges = np.unique(np.quantile(there, np.arange(1, count) / count))

    def of(scores: Floats) -> NDArray[np.int64]:
        found = np.searchsorted(edges, scores, side="right").astype(np.int64)
        return np.where(np.isfinite(scores), found, -1)

    return of(reference), of(current)


def probabilities(side: Columns, name: str) -> Floats:
    """The scores. Raises CannotJudge: some are not probabilities, or none is there."""
    scores = np.asarray(side["scores"], np.float64)
    there = scores[~np.isnan(scores)]
    if not len(there):
        raise CannotJudge(f"every score of the {name} is missing")
    if there.min() < 0 or there.max() > 1:
        raise CannotJudge(f"scores of the {name} are not probabilities")
    return scores
