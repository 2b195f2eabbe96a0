"""Two-tower retrieval: a user tower over attributes and the last interactions, an item tower over content and id.

Trained by in-batch sampled softmax with log-Q correction (Yi et al., "Sampling-bias-corrected neural modeling for
large corpus item recommendations", RecSys 2019). Both towers end in 128 dimensions of unit length; the score is their
dot product. An example is (what the user had done strictly before, what the user then did); examples are drawn with a
probability that decays with their age, so that the model speaks of now.

Shapes: B examples, N items, U users, H = 10 places of history, A attributes, D = 128.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from contracts.catalogue import Catalogue
from contracts.serving import EMBEDDING_DIM, HISTORY_LENGTH
from features.two_tower_inputs import padded_inputs
from training.determinism import deterministic
from training.interactions import HOUR_US, Log
from training.progress import Progress, silent

AGE_BUCKETS = 16
PRICE_BUCKETS = 16


class TwoTowerConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(6.0, gt=0, description="passes over the examples, before the caps below")
    min_steps: int = Field(100, ge=1)
    max_steps: int = Field(1200, ge=1)
    batch: int = Field(1024, ge=2)
    learning_rate: float = Field(3e-3, gt=0)
    half_life_d: float = Field(60.0, gt=0, description="an example's chance to be drawn halves this often")
    hidden: int = Field(256, ge=8)
    dropout: float = Field(0.2, ge=0, lt=1)
    unknown_user: float = Field(0.3, ge=0, le=1, description="share of examples whose user is hidden")
    unknown_item: float = Field(0.1, ge=0, le=1, description="share of items whose id is hidden")
    title_buckets: int = Field(1 << 14, ge=16)
    new_items_only: bool = Field(True, description="only the first time a user wants an item, as evaluation counts")


@dataclass(frozen=True, slots=True)
class ItemFeatures:
    """What the item tower reads. category, creator, price: int64 [N], 0 unknown; titles: hashed tokens, int64 [tokens],
    with int64 [N] offsets."""

    category: Tensor
    creator: Tensor
    price: Tensor
    tokens: Tensor
    offsets: Tensor
    n_categories: int
    n_creators: int

    @classmethod
    def of(cls, catalogue: Catalogue, titles: Sequence[str], title_buckets: int) -> "ItemFeatures":
        """Prices become quantile buckets; title words are hashed (CRC-32), so that no vocabulary is kept."""
        known = catalogue.price[np.isfinite(catalogue.price)]
        price = np.zeros(len(catalogue), dtype=np.int64)
        if len(known):
            edges = np.unique(np.quantile(known, np.linspace(0, 1, PRICE_BUCKETS)[1:-1]))
            finite = np.isfinite(catalogue.price)
            price[finite] = np.searchsorted(edges, catalogue.price[finite], side="right") + 1
        words = [[zlib.crc32(w.encode()) % title_buckets for w in title.lower().split()] for title in titles]
        lengths = np.array([len(w) for w in words], dtype=np.int64)
        return cls(
            category=torch.from_numpy(catalogue.category.astype(np.int64) + 1),
            creator=torch.from_numpy(catalogue.creator.astype(np.int64) + 1),
            price=torch.from_numpy(price),
            tokens=torch.tensor([t for w in words for t in w], dtype=torch.int64),
            offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)),
            n_categories=len(catalogue.categories) + 1,
            n_creators=len(catalogue.creators) + 1,
        )


class ItemTower(nn.Module):
    """Sum of the embeddings of what is known, and a residual layer over it."""

    def __init__(self, n_items: int, features: ItemFeatures, config: TwoTowerConfig) -> None:
        super().__init__()
        self.features = features
        self.hide = config.unknown_item
        self.id = nn.Embedding(n_items + 1, EMBEDDING_DIM)  # 0: unknown
        self.category = nn.Embedding(features.n_categories, EMBEDDING_DIM)
        self.creator = nn.Embedding(features.n_creators, EMBEDDING_DIM)
        self.price = nn.Embedding(PRICE_BUCKETS + 1, EMBEDDING_DIM)
        self.title = nn.EmbeddingBag(config.title_buckets, EMBEDDING_DIM, mode="mean")
        self.mix = nn.Sequential(
            nn.Linear(EMBEDDING_DIM, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, EMBEDDING_DIM),
        )
        for table in (self.id, self.category, self.creator, self.price, self.title):
            nn.init.normal_(table.weight, std=0.05)
        nn.init.zeros_(self.id.weight)

    def forward(self, items: Tensor, known: Tensor) -> Tensor:
        """items: int64 [B] rows; known: bool [N], items whose id was ever an example. Float32 [B, D], unit length."""
        f = self.features
        shown = known[items]
        if self.training:
            shown = shown & (torch.rand(len(items)) >= self.hide)
        x = self.id(torch.where(shown, items + 1, 0))
        x = x + self.category(f.category[items]) + self.creator(f.creator[items]) + self.price(f.price[items])
        x = x + self._titles(items)
        return normalize(x + self.mix(x), dim=-1)

    def _titles(self, items: Tensor) -> Tensor:
        f = self.features
        ends = torch.cat([f.offsets[1:], torch.tensor([len(f.tokens)])])
        lengths = ends[items] - f.offsets[items]
        offsets = torch.cumsum(lengths, 0) - lengths
        position = torch.arange(int(lengths.sum())) - torch.repeat_interleave(offsets, lengths)
        bags: Tensor = self.title(f.tokens[torch.repeat_interleave(f.offsets[items], lengths) + position], offsets)
        return bags


class UserTower(nn.Module):
    """Attention over the last interactions, asked by who the user is; then a residual network."""

    def __init__(self, n_items: int, n_users: int, attribute_sizes: Sequence[int], config: TwoTowerConfig) -> None:
        super().__init__()
        self.history = nn.Embedding(n_items + 1, EMBEDDING_DIM)  # 0: padding
        self.position = nn.Embedding(HISTORY_LENGTH, EMBEDDING_DIM)
        self.age = nn.Embedding(AGE_BUCKETS, EMBEDDING_DIM)
        self.user = nn.Embedding(n_users + 1, EMBEDDING_DIM)  # 0: unknown
        self.attributes = nn.ModuleList([nn.Embedding(size, EMBEDDING_DIM) for size in attribute_sizes])
        self.ask = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)
        self.nobody = nn.Parameter(torch.zeros(EMBEDDING_DIM))  # stands for an empty history
        self.drop = nn.Dropout(config.dropout)
        self.mix = nn.Sequential(
            nn.Linear(2 * EMBEDDING_DIM, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, EMBEDDING_DIM),
        )
        for table in (self.history, self.position, self.age, self.user, *self.attributes):
            nn.init.normal_(table.weight, std=0.05)
        nn.init.zeros_(self.user.weight)

    def forward(self, history: Tensor, history_age_h: Tensor, attributes: Tensor) -> Tensor:
        """As in registry/artifacts.py: int64 [B, H], float32 [B, H], int64 [B, 1 + A] → float32 [B, D], unit length."""
        bucket = torch.clamp(torch.log2(1.0 + history_age_h), max=AGE_BUCKETS - 1).to(torch.int64)
        places = self.position.weight.unsqueeze(0) + self.age(bucket)  # [B, H, D]
        met = self.history(history)
        who = self.user(attributes[:, 0])
        for i, table in enumerate(self.attributes):
            who = who + table(attributes[:, i + 1])
        keys = met + places
        logits = (keys * self.ask(who + self.nobody).unsqueeze(1)).sum(-1) / EMBEDDING_DIM**0.5
        logits = logits + (keys * self.nobody).sum(-1)
        empty = history == 0
        logits = torch.where(empty, torch.full_like(logits, -1e4), logits)
        weights = torch.softmax(logits, dim=-1) * (~empty).to(met.dtype)
        session = (weights.unsqueeze(-1) * keys).sum(1)  # [B, D]
        both = self.drop(torch.cat([who, session + self.nobody], dim=-1))
        return normalize(who + session + self.mix(both), dim=-1)


@dataclass(frozen=True, slots=True)
class TwoTowerModel:
    """users: the user tower, in evaluation mode; items: float32 [N, D], unit length; temperature: of the softmax."""

    users: UserTower
    items: NDArray[np.float32]
    temperature: float
    steps: int
    loss: float


@dataclass(frozen=True, slots=True)
class Examples:
    """Positions in the log. target: int64 [E'], the events to predict; before: int64 [E'], the first event of the
    target's user that is not strictly earlier; first: int64 [E'], the user's first event; chance: float64 [E'], of
    being drawn, sums to 1."""

    history_events: NDArray[np.int64]
    target: NDArray[np.int64]
    before: NDArray[np.int64]
    first: NDArray[np.int64]
    chance: NDArray[np.float64]


def examples(log: Log, half_life_d: float, new_items_only: bool) -> Examples:
    """Every positive event with the user's history (impressions are none) strictly before it."""
    events = np.flatnonzero(~log.impression)
    user, time = log.user[events].astype(np.int64), log.timestamp_us[events]
    n = len(events)
    new_user = np.r_[True, user[1:] != user[:-1]]
    new_moment = new_user | np.r_[True, time[1:] != time[:-1]]
    first = np.maximum.accumulate(np.where(new_user, np.arange(n), 0))
    before = np.maximum.accumulate(np.where(new_moment, np.arange(n), 0))
    target = log.weight[events] > 0
    if new_items_only:
        pair = user * (int(log.item.max()) + 1) + log.item[events]
        wanted = np.flatnonzero(target)
        _, earliest = np.unique(pair[wanted], return_index=True)  # events are in time order within a user
        target = np.zeros(n, dtype=bool)
        target[wanted[earliest]] = True
    at = np.flatnonzero(target)
    weight = (log.weight[events[at]] * log.decay(half_life_d)[events[at]]).astype(np.float64)
    weight = np.maximum(weight, weight.max() * 1e-9)
    return Examples(events, at, before[at], first[at], weight / weight.sum())


def histories(log: Log, ex: Examples, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Item rows int64 [B, H], newest first, -1 as padding, and ages in hours float32 [B, H], of examples `rows`."""
    at = ex.before[rows][:, None] - 1 - np.arange(HISTORY_LENGTH)
    there = at >= ex.first[rows][:, None]
    events = ex.history_events[np.maximum(at, 0)]
    items = np.where(there, log.item[events], -1).astype(np.int64)
    now = log.timestamp_us[ex.history_events[ex.target[rows]]]
    age = np.where(there, (now[:, None] - log.timestamp_us[events]) / HOUR_US, 0.0)
    return items, age.astype(np.float32)


def fit_two_tower(
    log: Log,
    catalogue: Catalogue,
    titles: Sequence[str],
    config: TwoTowerConfig,
    seed: int,
    progress: Progress = silent,
) -> TwoTowerModel:
    n_items = len(catalogue)
    ex = examples(log, config.half_life_d, config.new_items_only)
    target_item = log.item[ex.history_events[ex.target]].astype(np.int64)
    q = np.bincount(target_item, weights=ex.chance, minlength=n_items)
    log_q = torch.from_numpy(np.log(np.maximum(q, 1e-12)).astype(np.float32))
    met = torch.from_numpy(q > 0)
    batch = min(config.batch, max(2, len(ex.target)))
    steps = int(np.clip(config.epochs * len(ex.target) / batch, config.min_steps, config.max_steps))

    with deterministic(seed):
        draw = np.random.default_rng(seed)
        items = ItemTower(n_items, ItemFeatures.of(catalogue, titles, config.title_buckets), config)
        users = UserTower(n_items, log.n_users, [len(log.attribute_values[c]) for c in log.attribute_columns], config)
        log_temperature = nn.Parameter(torch.tensor(np.log(0.1), dtype=torch.float32))
        parameters = [*items.parameters(), *users.parameters(), log_temperature]
        optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, config.learning_rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
        )
        cumulative = np.cumsum(ex.chance)
        loss_value = 0.0
        for step in range(steps):
            rows = np.minimum(np.searchsorted(cumulative, draw.random(batch)), len(cumulative) - 1)
            event = ex.history_events[ex.target[rows]]
            user = log.user[event]
            attributes = np.concatenate([user[:, None] + 1, log.attributes[user]], axis=1).astype(np.int64)
            attributes[draw.random(batch) < config.unknown_user, 0] = 0
            inputs = padded_inputs(*histories(log, ex, rows), attributes)
            wanted = torch.from_numpy(target_item[rows])
            negatives, where = torch.unique(wanted, return_inverse=True)
            temperature = log_temperature.exp().clamp(0.02, 1.0)
            u = users(**{k: torch.from_numpy(v) for k, v in inputs.items()})
            v = items(negatives, met)
            # The chance that an item is in the batch at all: each distinct item stands once among the negatives.
            in_batch = torch.log(-torch.expm1(batch * torch.log1p(-log_q[negatives].exp().clamp(max=0.999999))))
            logits = u @ v.T / temperature - in_batch
            loss = cross_entropy(logits, where)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            loss_value = loss_value * 0.95 + 0.05 * float(loss.detach()) if step else float(loss.detach())
            progress("two-tower", step + 1, steps)
        users.eval()
        items.eval()
        with torch.no_grad():
            out = torch.cat([items(chunk, met) for chunk in torch.split(torch.arange(n_items), 8192)])
    return TwoTowerModel(
        users, out.numpy().astype(np.float32), float(log_temperature.detach().exp().clamp(0.02, 1.0)), steps, loss_value
    )
