"""LightGCN (He et al., SIGIR 2020) on the user-item graph, its edges weighed by how recent they are.

As there, a user is the normalised sum of their neighbours, without layers of weights. Unlike there they have no
embedding of their own: they are what they took up, as of a moment, so the same item embeddings place them at any
moment. The items begin at the first singular vectors of the normalised graph (`spectral.py`).

They are then trained on what comes next rather than on the edges that they are made of (`timeline.py`). How popular
items were by then stands beside taste, with learned weights; the export puts how they stand at the cut into one more
dimension.

Shapes: U users, N items, G dimensions, C candidates.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from training import parallel
from training.determinism import deterministic
from training.interactions import Positives, decay
from training.models.spectral import spectral_items
from training.models.standing import period_ends, standings
from training.models.timeline import Batch, Candidates, Neighbours, Timeline, loss
from training.progress import Progress, silent


class LightGCNConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    dimensions: int = Field(64, ge=4)
    half_life_d: float = Field(60.0, gt=0, description="an edge's weight halves this often")
    period_d: float = Field(
        14.0, gt=0, description="length of a period; at least 12 cover the log, at most 52 are used"
    )
    example_half_life_d: float = Field(90.0, gt=0, description="a period's chance to be drawn halves this often")
    epochs: float = Field(5.0, gt=0, description="passes over the users of all periods, before the caps below")
    min_steps: int = Field(20, ge=1)
    max_steps: int = Field(150, ge=1)
    batch: int = Field(512, ge=2, description="users")
    candidates: int = Field(20_000, ge=1, description="items that a step ranks: all, or so many drawn ones")
    learning_rate: float = Field(5e-3, gt=0)
    temperature: float = Field(0.1, gt=0, description="of the softmax, at the beginning")
    edge_dropout: float = Field(0.3, ge=0, lt=1)


@dataclass(frozen=True, slots=True)
class LightGCNModel:
    """users: float32 [U, G + 1], items: float32 [N, G + 1]; the score is the dot product."""

    users: NDArray[np.float32]
    items: NDArray[np.float32]
    steps: int
    loss: float


class Graph(nn.Module):
    """popularity: [moments, N, P], as of each period's begin and the cut."""

    def __init__(self, start: NDArray[np.float32], popularity: Tensor, temperature: float) -> None:
        super().__init__()
        self.neighbours = Neighbours(start)
        self.log_temperature = nn.Parameter(torch.tensor(np.log(temperature), dtype=torch.float32))
        self.popularity = popularity
        share = torch.zeros(popularity.shape[-1])
        share[0] = 0.5  # begin at the shortest memory
        self.share = nn.Parameter(share)

    def items(self, chosen: Tensor, moment: int) -> tuple[Tensor, Tensor]:
        """What users are compared with, [C, G], and how items stand, [C]."""
        towards = normalize(self.neighbours.items[chosen], dim=-1) / torch.exp(self.log_temperature)
        return towards, self.popularity[moment, chosen] @ self.share


def fit_lightgcn(
    positives: Positives,
    published_us: NDArray[np.int64],
    config: LightGCNConfig,
    seed: int,
    progress: Progress = silent,
) -> LightGCNModel:
    """published_us: int64 [N]."""
    n_items, n_users = len(published_us), positives.n_users
    timeline = Timeline(positives, n_items, config.half_life_d)
    ends = period_ends(positives, config.period_d)
    users_of = timeline.users(ends, newcomers=False)
    counts = np.array([len(users) for users in users_of])
    chance = counts * decay(ends[1:-1], positives.until_us, config.example_half_life_d).astype(np.float64)
    steps = int(np.clip(config.epochs * counts.sum() / config.batch, config.min_steps, config.max_steps))
    steps = steps if counts.any() else 0
    with deterministic(seed):
        draw = parallel.generator(seed)
        start = spectral_items(positives, n_items, config.dimensions, config.half_life_d, seed)
        popularity = torch.as_tensor(standings(positives, published_us, ends[1:]))
        graph = Graph(start, popularity, config.temperature)
        optimiser = torch.optim.Adam(graph.parameters(), lr=config.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, config.learning_rate, total_steps=steps + 1, pct_start=0.1
        )

        def step_loss(period: int, batch: Batch, candidates: Candidates) -> Tensor:
            towards, standing = graph.items(torch.as_tensor(candidates.items), period)
            who = graph.neighbours.of_batch(batch, config.edge_dropout, draw)
            return loss(who @ towards.T + standing, candidates, batch)

        shared_loss, loss_value = parallel.averaged(step_loss, graph.parameters(), seed), 0.0
        for step in range(steps):
            p = int(draw.choice(len(counts), p=chance / chance.sum()))
            users = np.sort(draw.choice(users_of[p], min(parallel.part(config.batch), counts[p]), replace=False))
            batch = timeline.batch(users, int(ends[p + 1]), int(ends[p + 2]), moment_us=int(ends[p + 1]))
            candidates = timeline.candidates(batch, config.candidates, draw)
            now = shared_loss(p, batch, candidates)
            optimiser.zero_grad(set_to_none=True)
            now.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            loss_value = loss_value * 0.95 + 0.05 * float(now.detach()) if step else float(now.detach())
            progress("graph", step + 1, steps)
        with torch.no_grad():
            towards, standing = graph.items(torch.arange(n_items), -1)
    return LightGCNModel(
        np.hstack([graph.neighbours.of_all(timeline, positives.until_us), np.ones((n_users, 1), np.float32)]),
        np.hstack([towards.numpy(force=True), standing[:, None].numpy(force=True)]),
        steps,
        loss_value,
    )
