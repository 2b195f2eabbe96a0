"""The free engine: SciPy's tests, and MMD and LSDD with vectorised permutations in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.drift.base import Codes, EngineName, Floats, Statistic
from monitoring.drift.engines.permutations import sequential_p

CHUNK = 100  # permutations at a time


class Scipy:
    name: EngineName = "scipy"

    def ks(self, reference: Floats, current: Floats) -> Statistic:
        from scipy.stats import ks_2samp

        found = ks_2samp(reference, current, method="asymp")
        return Statistic(float(found.statistic), float(found.pvalue))

    def cvm(self, reference: Floats, current: Floats) -> Statistic:
        from scipy.stats import cramervonmises_2samp

        found = cramervonmises_2samp(reference, current, method="asymptotic")
        return Statistic(float(found.statistic), float(found.pvalue))

    def chi_square(self, reference: Codes, current: Codes) -> Statistic:
        from scipy.stats import chi2_contingency

        categories = int(max(reference.max(), current.max())) + 1
        table = np.stack([np.bincount(side, minlength=categories) for side in (reference, current)])
        found = chi2_contingency(table[:, table.sum(axis=0) > 0])
        return Statistic(float(found.statistic), float(found.pvalue))

    def fisher(self, reference: NDArray[np.bool_], current: NDArray[np.bool_]) -> Statistic:
        from scipy.stats import fisher_exact

        hits = [int(current.sum()), int(reference.sum())]
        odds, p = fisher_exact([hits, [len(current) - hits[0], len(reference) - hits[1]]])
        return Statistic(float(odds), float(p))

    def mmd(self, reference: Floats, current: Floats, seed: int) -> Statistic:
        """Gretton et al. (2012): unbiased MMD², Gaussian kernel with the median distance as its width."""
        both = np.concatenate([reference, current]).astype(np.float32)
        squares = _squared_distances(both, both)
        width = np.median(squares[np.triu_indices(len(both), 1)])
        kernel = np.exp(squares / (-2 * max(float(width), 1e-12)))
        np.fill_diagonal(kernel, 0)
        n, m = len(reference), len(current)
        by_row, whole = kernel.sum(axis=1), float(kernel.sum())

        def mmd2(in_reference: NDArray[np.float32]) -> Floats:
            """in_reference: 1 where a row is taken as the reference's. Shape (n + m, B)."""
            xx = np.einsum("ib,ib->b", in_reference, kernel @ in_reference).astype(np.float64)
            x_all = (by_row @ in_reference).astype(np.float64)
            yy, xy = whole - 2 * x_all + xx, x_all - xx
            return np.asarray(xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m))

        return _permuted(mmd2, n, m, seed)

    def lsdd(self, reference: Floats, current: Floats, seed: int) -> Statistic:
        """Sugiyama et al. (2013): least-squares difference of two densities, on Gaussians around a tenth of the rows.

        The rows that are centres take no part in the comparison. θ is shrunk by a hundredth of H's mean diagonal.
        """
        rng = np.random.default_rng(seed)
        mean, sd = reference.mean(axis=0), reference.std(axis=0)
        both = ((np.concatenate([reference, current]) - mean) / np.where(sd > 0, sd, 1)).astype(np.float64)
        order = rng.permutation(len(reference))
        centres = both[order[: max(len(reference) // 10, 10)]]
        rows = np.concatenate([both[order[len(centres) :]], both[len(reference) :]])
        n, m = len(reference) - len(centres), len(current)
        squares = _squared_distances(centres, centres)
        width = max(float(np.median(squares[np.triu_indices(len(centres), 1)])), 1e-12) / 2
        H = np.exp(squares / (-4 * width))
        inverse = np.linalg.inv(H + 0.01 * np.eye(len(H)))
        quadratic = 2 * inverse - inverse @ H @ inverse
        kernel = np.exp(_squared_distances(rows, centres) / (-2 * width))
        total = kernel.sum(axis=0)

        def lsdd(in_reference: NDArray[np.float32]) -> Floats:
            sums = kernel.T @ in_reference
            h = sums / n - (total[:, None] - sums) / m
            return np.asarray(np.einsum("cb,cb->b", h, quadratic @ h))

        return _permuted(lsdd, n, m, seed)


def _squared_distances(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2 * a @ b.T
    return np.maximum(squares, 0)


def _permuted(statistic: Callable[[NDArray[np.float32]], Floats], n: int, m: int, seed: int) -> Statistic:
    """The statistic of the first n rows against the last m, and its permutation p-value."""
    rng = np.random.default_rng(seed)
    observed = float(statistic(_marks(np.arange(n)[None, :], n + m))[0])

    def exceed(count: int) -> int:
        chosen = np.argsort(rng.random((count, n + m)), axis=1)[:, :n]
        return int((statistic(_marks(chosen, n + m)) >= observed).sum())

    return Statistic(observed, sequential_p(exceed, CHUNK))


def _marks(chosen: NDArray[np.int64], rows: int) -> NDArray[np.float32]:
    marks = np.zeros((rows, len(chosen)), np.float32)
    marks[chosen.T, np.arange(len(chosen))[None, :]] = 1
    return marks
