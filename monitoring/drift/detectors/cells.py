"""Means of two windows compared cell by cell (positions, score buckets, slices), and all cells judged as one.

z² of each cell's difference (Welch), summed: χ² with as many degrees of freedom as cells.
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
        """Rows, mean and variance of the mean (with its sample's variance). Shape (cells,) each."""
        there = (self.cell >= 0) & ~np.isnan(self.y)
        cell, y = self.cell[there], self.y[there]
        n = np.bincount(cell, minlength=cells).astype(np.float64)
        safe = np.maximum(n, 1)
        mean = np.bincount(cell, y, minlength=cells) / safe
        squares = np.bincount(cell, (y - mean[cell]) ** 2, minlength=cells)
        return n, mean, squares / np.maximum(n - 1, 1)


def compare_cells(reference: Cells, current: Cells, what: str, *, pooled: bool) -> Finding:
    """pooled: one variance for both sides, as if nothing had changed (proportions); otherwise each its own (Welch).

    effect: root of (χ² − df) (n + m) / (n m), the root mean square difference in standard deviations less what chance
    gives.
    """
    from scipy.stats import chi2

    cells = int(max(reference.cell.max(initial=-1), current.cell.max(initial=-1))) + 1
    (n, x, vx), (m, y, vy) = reference.sums(cells), current.sums(cells)
    if not n.sum() or not m.sum():
        raise CannotJudge(f"no label is known in the {'current' if n.sum() else 'reference'}")
    if pooled:
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = (n * x + m * y) / (n + m)
        vx = vy = rate * (1 - rate)
    enough = (n >= LEAST_IN_CELL) & (m >= LEAST_IN_CELL)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = vx / n + vy / m
        z = (y - x) / np.sqrt(variance)
    judged = np.flatnonzero(enough & (variance > 0))
    if not len(judged):
        raise CannotJudge(f"no {what} has {LEAST_IN_CELL} labelled rows on both sides, with labels that vary")
    statistic, df = float((z[judged] ** 2).sum()), len(judged)
    rows = n[judged].sum() * m[judged].sum() / (n[judged].sum() + m[judged].sum())
    worst = judged[np.argsort(-np.abs(z[judged]), kind="stable")][:SHOWN]
    details = {
        "cells": df,
        "moved": [
            {"category": int(c), "reference": float(x[c]), "current": float(y[c]), "z": float(z[c]), "rows": int(m[c])}
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
