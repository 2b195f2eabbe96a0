"""EASE: a linear item-item autoencoder in closed form. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data",
WWW 2019. The matrix is dense, N × N: refused above `MAX_ITEMS` (at 200,000 items it would be 160 GB)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

MAX_ITEMS = 20_000
REGULARISATION = 1000.0


class TooManyItems(ValueError):
    """The dense matrix would be too large."""


def fit(met: csr_matrix, regularisation: float = REGULARISATION) -> NDArray[np.float32]:
    """Weights float32 [N, N], zero diagonal. met: [U, N], 1 where the user met the item.

    Raises:
        TooManyItems: more than `MAX_ITEMS`.
    """
    n_items = met.shape[1]
    check_size(n_items)
    gram: NDArray[Any] = (met.T @ met).toarray().astype(np.float64 if n_items <= 8000 else np.float32)
    gram[np.diag_indices(n_items)] += regularisation
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return np.asarray(weights, np.float32)


def check_size(n_items: int) -> None:
    """
    Raises:
        TooManyItems: more than `MAX_ITEMS`.
    """
    if n_items > MAX_ITEMS:
        raise TooManyItems(f"{n_items} items: EASE is run up to {MAX_ITEMS} (its matrix is dense)")


def score(met: csr_matrix, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores float32 [U, N] for the rows of `met`."""
    return np.asarray(met @ weights, dtype=np.float32)
