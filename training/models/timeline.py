"""A log of wishes by user and period: what users had taken up by a moment, and what they then took up first.

What a retriever is for, and what it learns: a batch is some users as of a moment of a period, their edges as they were
then, and the new items of the rest of the period. It ranks all items, or so many drawn ones, that a user had not met.

Shapes: U users, N items, B users of a batch, E their events, C candidates, D dimensions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, log_softmax, normalize

from training.interactions import Positives, decay


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of B users, aligned. row: int64 [E], 0 to B − 1, in order; item: int64 [E]; met: before the user's moment;
    wanted: new to the user, from that moment to the period's end; edge: float32 [E], weight as of the period's begin;
    weight: float32 [E], of the event's kind."""

    size: int
    row: NDArray[np.int64]
    item: NDArray[np.int64]
    met: NDArray[np.bool_]
    wanted: NDArray[np.bool_]
    edge: NDArray[np.float32]
    weight: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidates:
    """items: int64 [C], in order; log_q: float32 [C], logarithm of the chance that an item is among them."""

    items: NDArray[np.int64]
    log_q: NDArray[np.float32]


class Timeline:
    """first: bool [events], the user's first with that item; an event's place is that in `positives`."""

    def __init__(self, positives: Positives, n_items: int, half_life_d: float) -> None:
        self.user = positives.user.astype(np.int64)
        self.item = positives.item.astype(np.int64)
        self.time, self.weight = positives.timestamp_us, positives.weight
        self.half_life_d, self.n_items = half_life_d, n_items
        self.start = np.r_[0, np.cumsum(np.bincount(self.user, minlength=positives.n_users))]
        _, earliest = np.unique(self.user * n_items + self.item, return_index=True)  # in time order within a user
        self.first = np.zeros(len(self.user), dtype=bool)
        self.first[earliest] = True
        self.share = np.bincount(self.item[earliest], minlength=n_items) / max(len(earliest), 1)

    def users(self, ends: NDArray[np.int64], *, newcomers: bool) -> list[NDArray[np.int64]]:
        """For each period but the first, the users who took up something new in it.

        newcomers: also those of whom nothing was before it.
        """
        began = self.time[np.minimum(self.start[:-1], len(self.time) - 1)]
        period = np.searchsorted(ends, self.time, side="right") - 1
        told = self.first & (period > 0)
        if not newcomers:
            told &= began[self.user] < ends[np.maximum(period, 0)]
        return [np.unique(self.user[told & (period == p)]) for p in range(1, len(ends) - 1)]

    def of(self, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All events of some users: their row in `users`, in order, and the events' places."""
        counts = self.start[users + 1] - self.start[users]
        row = np.repeat(np.arange(len(users)), counts)
        return row, np.arange(len(row)) + np.repeat(self.start[users] - np.cumsum(counts) + counts, counts)

    def edges(self, at: NDArray[np.int64], moment_us: int) -> NDArray[np.float32]:
        """Weights of events as of a moment: float32, above zero for what was before it, else zero."""
        decayed = np.maximum(decay(self.time[at], moment_us, self.half_life_d), np.float32(1e-9))
        out: NDArray[np.float32] = np.where(self.time[at] < moment_us, self.weight[at] * decayed, np.float32(0))
        return out

    def moments(
        self, users: NDArray[np.int64], from_us: int, to_us: int, draw: np.random.Generator
    ) -> NDArray[np.int64]:
        """A moment of each user's in the period: that of a drawn event among those new to them. int64 [B]."""
        row, at = self.of(users)
        told = self.first[at] & (self.time[at] >= from_us) & (self.time[at] < to_us)
        row, time = row[told], self.time[at[told]]
        order = np.lexsort((draw.random(len(row)), row))
        _, one = np.unique(row[order], return_index=True)
        return np.asarray(time[order][one])

    def batch(self, users: NDArray[np.int64], from_us: int, to_us: int, moment_us: NDArray[np.int64] | int) -> Batch:
        """moment_us: of each user, int64 [B], or one for all."""
        row, at = self.of(users)
        time = self.time[at]
        met = time < np.broadcast_to(moment_us, users.shape)[row]
        wanted = ~met & (time < to_us) & self.first[at]
        return Batch(len(users), row, self.item[at], met, wanted, self.edges(at, from_us), self.weight[at])

    def candidates(self, batch: Batch, at_most: int, draw: np.random.Generator) -> Candidates:
        """All items, or what the batch wants and so many drawn ones."""
        if self.n_items <= at_most:
            return Candidates(np.arange(self.n_items), np.zeros(self.n_items, np.float32))
        wanted = batch.item[batch.wanted]
        items = np.union1d(wanted, draw.choice(self.n_items, at_most, replace=False))
        absent = (1 - at_most / self.n_items) * (1 - self.share[items]) ** len(wanted)
        return Candidates(items, np.log(1 - absent).astype(np.float32))


def loss(logits: Tensor, candidates: Candidates, batch: Batch) -> Tensor:
    """Softmax over the candidates that a user had not met, averaged over what they wanted. logits: [B, C].

    A user with n wishes counts as √n: between every user as much and every wish as much.
    """
    known = np.searchsorted(candidates.items, batch.item)
    there = candidates.items[np.minimum(known, len(candidates.items) - 1)] == batch.item
    hidden, wanted = batch.met & there, batch.wanted
    logits = logits - torch.as_tensor(candidates.log_q)
    logits = logits.index_put((torch.as_tensor(batch.row[hidden]), torch.as_tensor(known[hidden])), torch.tensor(-1e4))
    each = log_softmax(logits, dim=-1)[torch.as_tensor(batch.row[wanted]), torch.as_tensor(known[wanted])]
    counts = np.bincount(batch.row[wanted], minlength=batch.size)
    weight = torch.as_tensor((batch.weight[wanted] / np.sqrt(counts[batch.row[wanted]])).astype(np.float32))
    return -(each * weight).sum() / weight.sum()


class Neighbours(nn.Module):
    """A user as the sum of what they took up, each item with a learned weight, of unit length."""

    def __init__(self, items: NDArray[np.float32]) -> None:
        """items: float32 [N, D], where the embeddings begin."""
        super().__init__()
        self.items = nn.Parameter(torch.tensor(items))
        self.weight = nn.Parameter(torch.zeros(len(items)))  # logarithm of how much an item says of who takes it up

    def forward(self, row: NDArray[np.int64], item: NDArray[np.int64], edge: NDArray[np.float32], n: int) -> Tensor:
        """row, item: int64 [E], rows in order; edge: float32 [E] → float32 [n, D], zero for a row without edges."""
        items = torch.as_tensor(item)
        start = torch.as_tensor(np.searchsorted(row, np.arange(n)))
        weight = torch.as_tensor(edge) * torch.exp(self.weight[items])
        return normalize(embedding_bag(items, self.items, start, mode="sum", per_sample_weights=weight), dim=-1)

    def of_batch(self, batch: Batch, dropout: float, draw: np.random.Generator) -> Tensor:
        """The batch's users from edges before the period, some of them left out: [B, D]."""
        kept = (batch.edge > 0) & (draw.random(len(batch.row)) >= dropout)
        of_users: Tensor = self(batch.row[kept], batch.item[kept], batch.edge[kept], batch.size)
        return of_users

    @torch.no_grad()
    def of_all(self, timeline: Timeline, until_us: int) -> NDArray[np.float32]:
        """Every user as of a moment: float32 [U, D]."""
        edge = timeline.edges(np.arange(len(timeline.user)), until_us)
        out: NDArray[np.float32] = self(timeline.user, timeline.item, edge, len(timeline.start) - 1).numpy(force=True)
        return out
