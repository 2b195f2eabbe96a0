"""LightGCN (He et al., SIGIR 2020) on the user-item graph, its edges weighed by how recent they are.

A node's embedding is the mean over its layers, each layer the normalised sum of its neighbours' embeddings in the one
below; there are no other weights. Trained by in-batch sampled softmax over the distinct items of a batch. Without a
correction for how often an item is sampled, that fits log P(item | user) - log Q(item): affinity apart from
popularity. A part of Q as it stands now is put back as one more dimension. Only a
part: the other sources bring what is popular, and a union gains from sources that differ.
Shapes: U users, N items, G dimensions.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from training.determinism import deterministic
from training.interactions import Positives
from training.models.trending import decayed_counts
from training.progress import Progress, silent


class LightGCNConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    dimensions: int = Field(64, ge=4)
    layers: int = Field(2, ge=1, le=4)
    half_life_d: float = Field(60.0, gt=0, description="an edge's weight halves this often")
    epochs: float = Field(15.0, gt=0)
    min_steps: int = Field(60, ge=1)
    max_steps: int = Field(300, ge=1)
    edge_budget: float = Field(2e8, gt=0, description="cap on steps x edges x layers: bounds the time on big graphs")
    batch: int = Field(4096, ge=2)
    learning_rate: float = Field(1e-2, gt=0)
    temperature: float = Field(0.15, gt=0)
    standing_half_life_d: float = Field(60.0, gt=0, description="memory of the popularity that is put back")
    standing_weight: float = Field(0.5, ge=0, description="how much of it; trending and content bring the rest")


@dataclass(frozen=True, slots=True)
class LightGCNModel:
    """users: float32 [U, G + 1], items: float32 [N, G + 1]; the score is the dot product."""

    users: NDArray[np.float32]
    items: NDArray[np.float32]
    steps: int
    loss: float


def fit_lightgcn(
    positives: Positives,
    n_items: int,
    config: LightGCNConfig,
    seed: int,
    progress: Progress = silent,
) -> LightGCNModel:
    n_users = positives.n_users
    pair = positives.user.astype(np.int64) * n_items + positives.item
    edges, inverse = np.unique(pair, return_inverse=True)
    weight = np.bincount(inverse, weights=positives.decayed_weight(config.half_life_d)).astype(np.float64)
    weight = np.maximum(weight, 1e-6)
    user, item = edges // n_items, edges % n_items
    chance = weight / weight.sum()

    batch = min(config.batch, max(2, len(edges)))
    steps = int(np.clip(config.epochs * len(edges) / batch, config.min_steps, config.max_steps))
    steps = max(2, min(steps, int(config.edge_budget / (len(edges) * config.layers))))
    with deterministic(seed):
        draw = np.random.default_rng(seed)
        graph, back = _normalised(user, item, weight, n_users, n_items)
        u0 = nn.Parameter(torch.randn(n_users, config.dimensions) * 0.1)
        v0 = nn.Parameter(torch.randn(n_items, config.dimensions) * 0.1)
        optimiser = torch.optim.Adam([u0, v0], lr=config.learning_rate, fused=True)
        cumulative = np.cumsum(chance)
        loss_value = 0.0
        for step in range(steps):
            rows = np.minimum(np.searchsorted(cumulative, draw.random(batch)), len(cumulative) - 1)
            u, v = _propagate(u0, v0, graph, back, config.layers)
            wanted, where = torch.unique(torch.from_numpy(item[rows]), return_inverse=True)
            left = normalize(u[torch.from_numpy(user[rows])], dim=-1)
            right = normalize(v[wanted], dim=-1)
            logits = left @ right.T / config.temperature
            loss = cross_entropy(logits, where)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            loss_value = loss_value * 0.95 + 0.05 * float(loss.detach()) if step else float(loss.detach())
            progress("graph", step + 1, steps)
        with torch.no_grad():
            u, v = _propagate(u0, v0, graph, back, config.layers)
            users = normalize(u, dim=-1) / config.temperature
            items = normalize(v, dim=-1)
    bias = _standing(positives, n_items, config)[:, None]
    return LightGCNModel(
        np.hstack([users.numpy(), np.ones((n_users, 1), np.float32)]).astype(np.float32),
        np.hstack([items.numpy(), bias]).astype(np.float32),
        steps,
        loss_value,
    )


def _standing(positives: Positives, n_items: int, config: LightGCNConfig) -> NDArray[np.float32]:
    """float32 [N]: logarithm of the decayed count against the mean item's."""
    count = decayed_counts(positives, n_items, config.standing_half_life_d)
    out: NDArray[np.float32] = config.standing_weight * np.log(count / max(float(count.mean()), 1e-9) + 0.02)
    return out.astype(np.float32)


def _normalised(
    user: NDArray[np.int64], item: NDArray[np.int64], weight: NDArray[np.float64], n_users: int, n_items: int
) -> tuple[Tensor, Tensor]:
    """D^-1/2 A D^-1/2 of the bipartite graph as its two halves: sparse [U, N] and [N, U]."""
    du = np.bincount(user, weights=weight, minlength=n_users)
    di = np.bincount(item, weights=weight, minlength=n_items)
    value = (weight / np.sqrt(du[user] * di[item])).astype(np.float32)
    return _sparse(user, item, value, (n_users, n_items)), _sparse(item, user, value, (n_items, n_users))


def _sparse(
    row: NDArray[np.int64], column: NDArray[np.int64], value: NDArray[np.float32], shape: tuple[int, int]
) -> Tensor:
    order = np.lexsort((column, row))
    start = np.r_[0, np.cumsum(np.bincount(row, minlength=shape[0]))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls its CSR tensors a beta
        return torch.sparse_csr_tensor(
            torch.from_numpy(start),
            torch.from_numpy(column[order]),
            torch.from_numpy(value[order]),
            shape,
            check_invariants=True,
        )


class _Spread(torch.autograd.Function):
    """Sparse times dense whose backward uses the transpose kept beside it (no transposition at each step)."""

    @staticmethod
    def forward(ctx: object, matrix: Tensor, transpose: Tensor, x: Tensor) -> Tensor:
        ctx.transpose = transpose  # type: ignore[attr-defined]
        return matrix @ x

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transpose @ grad.contiguous()  # type: ignore[attr-defined]


def _spread(matrix: Tensor, transpose: Tensor, x: Tensor) -> Tensor:
    out: Tensor = _Spread.apply(matrix, transpose, x)  # type: ignore[no-untyped-call]
    return out


def _propagate(u: Tensor, v: Tensor, graph: Tensor, back: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    users, items = u, v
    for _ in range(layers):
        u, v = _spread(graph, back, v), _spread(back, graph, u)
        users, items = users + u, items + v
    return users / (layers + 1), items / (layers + 1)
