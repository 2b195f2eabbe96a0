"""Items in the first singular vectors of the normalised user-item graph: where many layers of LightGCN lead
(Shen et al., "How powerful is graph convolution for recommendation?", CIKM 2021)."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from sklearn.utils.extmath import randomized_svd

from training.interactions import Positives

NOISE = 1e-3  # tells items without edges apart


def spectral_items(
    positives: Positives, n_items: int, dimensions: int, half_life_d: float, seed: int
) -> NDArray[np.float32]:
    """D^-1/2 A D^-1/2 with edges that halve every half-life; each dimension as long as its singular value, then each
    item of unit length: float32 [N, dimensions]."""
    weight = np.maximum(positives.decayed_weight(half_life_d), 1e-9)
    adjacency = csr_matrix((weight, (positives.user, positives.item)), shape=(positives.n_users, n_items))
    of_users, of_items = (np.maximum(np.asarray(adjacency.sum(axis)).ravel(), 1e-9) for axis in (1, 0))
    normalised = (diags(of_users**-0.5) @ adjacency @ diags(of_items**-0.5)).astype(np.float32)
    rank = min(dimensions, *normalised.shape)
    _, value, vectors = randomized_svd(normalised, rank, n_iter=4, random_state=seed)
    out = np.random.default_rng(seed).normal(scale=NOISE, size=(n_items, dimensions)).astype(np.float32)
    out[:, :rank] += vectors.T * value
    return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), np.float32)
