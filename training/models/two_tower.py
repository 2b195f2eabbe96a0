"""Two-tower retrieval: a user tower over attributes, past and last interactions, an item tower over content and id.

Both towers end in 128 dimensions of unit length; the score is their dot product. What a user had taken up before is a
table of the tower, one vector a user, as of the cut: the normalised sum of their items, older ones counting less. What
they do afterwards comes in by the last interactions. An example is a user at a moment: what they had done strictly
before, what they then took up first until the period's end (`timeline.py`); periods are drawn with a probability that
decays with their age, so that the model speaks of now.

What is wanted changes faster than ids can tell, so the item tower also reads an item's standing (decayed counts, age)
as of the period's begin: it learns what a standing then said about the days to come, never from counts that hold the
target itself. The export reads standings of the cut.

Shapes: B examples, N items, U users, H = 10 places of history, A attributes, D = 128, C candidates.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from contracts.catalogue import Catalogue
from contracts.serving import EMBEDDING_DIM, HISTORY_LENGTH
from features.two_tower_inputs import padded_inputs
from training import parallel
from training.determinism import deterministic
from training.interactions import HOUR_US, Log, decay
from training.models.spectral import spectral_items
from training.models.standing import STANDING, period_ends, standings
from training.models.timeline import Batch, Candidates, Neighbours, Timeline, loss
from training.progress import Progress, silent

AGE_BUCKETS = 16
PRICE_BUCKETS = 16


class TwoTowerConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(5.0, gt=0, description="passes over the users of all periods, before the caps below")
    min_steps: int = Field(40, ge=1)
    max_steps: int = Field(100, ge=1)
    batch: int = Field(512, ge=2, description="users")
    candidates: int = Field(4096, ge=1, description="items that a step ranks: all, or so many drawn ones")
    learning_rate: float = Field(3e-3, gt=0)
    temperature: float = Field(0.06, gt=0, description="of the softmax, at the beginning")
    period_d: float = Field(
        14.0, gt=0, description="length of a period; at least 12 cover the log, at most 52 are used"
    )
    example_half_life_d: float = Field(90.0, gt=0, description="a period's chance to be drawn halves this often")
    half_life_d: float = Field(60.0, gt=0, description="what a user took up counts half as much after so long")
    hidden: int = Field(256, ge=8)
    dropout: float = Field(0.5, ge=0, lt=1)
    edge_dropout: float = Field(0.3, ge=0, lt=1, description="share of a user's past that is left out")
    unknown_user: float = Field(0.3, ge=0, le=1, description="share of examples whose user is hidden")
    unknown_item: float = Field(0.2, ge=0, le=1, description="share of items whose id is hidden")
    title_buckets: int = Field(1 << 14, ge=16)
    crowd: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="weight of the crowd's dimension in the bundle; training trusts taste too much",
    )


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
            category=torch.as_tensor(catalogue.category.astype(np.int64) + 1),
            creator=torch.as_tensor(catalogue.creator.astype(np.int64) + 1),
            price=torch.as_tensor(price),
            tokens=torch.tensor([t for w in words for t in w], dtype=torch.int64),
            offsets=torch.as_tensor(np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)),
            n_categories=len(catalogue.categories) + 1,
            n_creators=len(catalogue.creators) + 1,
        )


def with_last(x: Tensor, last: Tensor) -> Tensor:
    """`x` [B, D] with its last dimension replaced by `last` [B, 1] in [-1, 1], the whole of unit length.

    That dimension carries what all users share (an item's worth to the crowd), so that the others need not.
    """
    own = normalize(x[:, : EMBEDDING_DIM - 1], dim=-1)
    return torch.cat([own * torch.sqrt(torch.clamp(1.0 - last * last, min=1e-6)), last], dim=-1)


class ItemTower(nn.Module):
    """Sum of the embeddings of what is known, and a residual layer over it."""

    def __init__(self, start: NDArray[np.float32], features: ItemFeatures, config: TwoTowerConfig) -> None:
        """start: float32 [N, D], where the embeddings of ids begin."""
        super().__init__()
        n_items = len(start)
        self.features = features
        self.hide = config.unknown_item
        self.id = nn.Embedding(n_items + 1, EMBEDDING_DIM)  # 0: unknown
        self.category = nn.Embedding(features.n_categories, EMBEDDING_DIM)
        self.creator = nn.Embedding(features.n_creators, EMBEDDING_DIM)
        self.price = nn.Embedding(PRICE_BUCKETS + 1, EMBEDDING_DIM)
        self.title = nn.EmbeddingBag(config.title_buckets, EMBEDDING_DIM, mode="mean")
        self.standing = nn.Sequential(nn.Linear(STANDING, 64), nn.GELU(), nn.Linear(64, EMBEDDING_DIM))
        self.mix = nn.Sequential(
            nn.Linear(EMBEDDING_DIM, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, EMBEDDING_DIM),
        )
        self.worth = nn.Linear(STANDING, 1)
        nn.init.zeros_(self.worth.weight)
        nn.init.zeros_(self.worth.bias)
        with torch.no_grad():
            self.worth.weight[0, 0 : STANDING - 2 : 2] = 0.03  # begin at the logarithms of the counts
        for table in (self.category, self.creator, self.price, self.title):
            nn.init.normal_(table.weight, std=0.05)
        _begin(self.id, start)

    def forward(self, items: Tensor, known: Tensor, standing: Tensor) -> Tensor:
        """items: int64 [B] rows; known: bool [N], items whose id was ever an example; standing: float32 [N, STANDING].

        Returns:
            Float32 [B, D], unit length.
        """
        f = self.features
        shown = known[items]
        if self.training:
            shown = shown & (torch.rand(len(items)) >= self.hide)
        x = self.id(torch.where(shown, items + 1, 0))
        x = x + self.category(f.category[items]) + self.creator(f.creator[items]) + self.price(f.price[items])
        x = x + self._titles(items) + self.standing(standing[items])
        return with_last(x + self.mix(x), torch.tanh(self.worth(standing[items])))

    def _titles(self, items: Tensor) -> Tensor:
        f = self.features
        ends = torch.cat([f.offsets[1:], torch.tensor([len(f.tokens)])])
        lengths = ends[items] - f.offsets[items]
        offsets = torch.cumsum(lengths, 0) - lengths
        position = torch.arange(int(lengths.sum())) - torch.repeat_interleave(offsets, lengths)
        bags: Tensor = self.title(f.tokens[torch.repeat_interleave(f.offsets[items], lengths) + position], offsets)
        return bags


class UserTower(nn.Module):
    """Attention over the last interactions, asked by who the user is; then a residual network.

    user: what each known user had taken up, to be filled in at the cut; training computes it as of a period's begin.
    """

    def __init__(
        self, start: NDArray[np.float32], n_users: int, attribute_sizes: Sequence[int], config: TwoTowerConfig
    ) -> None:
        """start: float32 [N, D], where the embeddings of the history begin."""
        super().__init__()
        n_items = len(start)
        self.history = nn.Embedding(n_items + 1, EMBEDDING_DIM)  # 0: padding
        self.position = nn.Embedding(HISTORY_LENGTH, EMBEDDING_DIM)
        self.age = nn.Embedding(AGE_BUCKETS, EMBEDDING_DIM)
        self.user = nn.Embedding(n_users + 1, EMBEDDING_DIM)  # 0: unknown
        self.attributes = nn.ModuleList([nn.Embedding(size, EMBEDDING_DIM) for size in attribute_sizes])
        self.ask = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)
        self.nobody = nn.Parameter(torch.zeros(EMBEDDING_DIM))  # stands for an empty history
        self.crowd = nn.Parameter(torch.tensor([0.5]))  # how much the crowd counts, against the user's own taste
        # Centred over users: what all users share is left to the crowd's dimension, which knows an item's standing now;
        # otherwise the ids learn the popularity of seasons that are over.
        self.apart = nn.BatchNorm1d(EMBEDDING_DIM, affine=False)
        self.drop = nn.Dropout(config.dropout)
        self.mix = nn.Sequential(
            nn.Linear(2 * EMBEDDING_DIM, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, EMBEDDING_DIM),
        )
        for table in (self.position, self.age, *self.attributes):
            nn.init.normal_(table.weight, std=0.05)
        _begin(self.history, start)
        nn.init.zeros_(self.user.weight)
        self.user.requires_grad_(False)

    def forward(self, history: Tensor, history_age_h: Tensor, attributes: Tensor) -> Tensor:
        """As in registry/artifacts.py: int64 [B, H], float32 [B, H], int64 [B, 1 + A] → float32 [B, D], unit length."""
        return self.at(history, history_age_h, attributes, self.user(attributes[:, 0]))

    def at(self, history: Tensor, history_age_h: Tensor, attributes: Tensor, who: Tensor) -> Tensor:
        """who: float32 [B, D], what the user had taken up; zero for one nobody knows."""
        bucket = torch.clamp(torch.log2(1.0 + history_age_h), max=AGE_BUCKETS - 1).to(torch.int64)
        places = self.position.weight.unsqueeze(0) + self.age(bucket)  # [B, H, D]
        met = self.history(history)
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
        crowd = torch.sigmoid(self.crowd) + torch.zeros_like(who[:, :1])
        taste = who + session + self.mix(both)
        alone = self.training and len(taste) == 1  # one user has no deviation to be divided by
        return with_last(taste if alone else self.apart(taste), crowd)


@dataclass(frozen=True, slots=True)
class TwoTowerModel:
    """users: the user tower, in evaluation mode; items: float32 [N, D], unit length; temperature: of the softmax."""

    users: UserTower
    items: NDArray[np.float32]
    temperature: float
    steps: int
    loss: float


class Sessions:
    """What users did last: their events that are no impressions."""

    def __init__(self, log: Log) -> None:
        events = np.flatnonzero(~log.impression)
        self.item, self.time = log.item[events].astype(np.int64), log.timestamp_us[events]
        self.start = np.r_[0, np.cumsum(np.bincount(log.user[events], minlength=log.n_users))]

    def before(
        self, users: NDArray[np.int64], moments_us: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Item rows int64 [B, H], newest first, -1 as padding, and ages in hours float32 [B, H], of what each user did
        strictly before their moment."""
        first = self.start[users]
        ends = [
            begin + np.searchsorted(self.time[begin:end], moment)
            for begin, end, moment in zip(first, self.start[users + 1], moments_us, strict=True)
        ]
        at = np.array(ends)[:, None] - 1 - np.arange(HISTORY_LENGTH)
        there = at >= first[:, None]
        at = np.where(there, at, 0)
        items = np.where(there, self.item[at], -1)
        age = np.where(there, (moments_us[:, None] - self.time[at]) / HOUR_US, 0.0)
        return items, age.astype(np.float32)


def fit_two_tower(
    log: Log,
    catalogue: Catalogue,
    titles: Sequence[str],
    config: TwoTowerConfig,
    seed: int,
    progress: Progress = silent,
) -> TwoTowerModel:
    n_items, positives, sessions = len(catalogue), log.positives(), Sessions(log)
    timeline = Timeline(positives, n_items, config.half_life_d)
    ends = period_ends(positives, config.period_d)
    users_of = timeline.users(ends, newcomers=True)
    counts = np.array([len(users) for users in users_of])
    chance = counts * decay(ends[1:-1], log.until_us, config.example_half_life_d).astype(np.float64)
    steps = int(np.clip(config.epochs * counts.sum() / config.batch, config.min_steps, config.max_steps))
    steps = steps if counts.any() else 0
    with deterministic(seed):
        draw = parallel.generator(seed)
        known = torch.as_tensor(timeline.share > 0)
        standing = torch.as_tensor(standings(positives, catalogue.published_us, ends[1:]))
        start = spectral_items(positives, n_items, EMBEDDING_DIM, config.half_life_d, seed)
        items = ItemTower(start, ItemFeatures.of(catalogue, titles, config.title_buckets), config)
        users = UserTower(start, log.n_users, [len(log.attribute_values[c]) for c in log.attribute_columns], config)
        past = Neighbours(start)
        log_temperature = nn.Parameter(torch.tensor(np.log(config.temperature), dtype=torch.float32))
        parameters = [*items.parameters(), *users.parameters(), *past.parameters(), log_temperature]
        parameters = [p for p in parameters if p.requires_grad]
        optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, config.learning_rate, total_steps=steps + 1, pct_start=0.1
        )

        def step_loss(
            period: int, inputs: Mapping[str, Tensor], shown: Tensor, batch: Batch, candidates: Candidates
        ) -> Tensor:
            u = users.at(**inputs, who=past.of_batch(batch, config.edge_dropout, draw) * shown)
            v = items(torch.as_tensor(candidates.items), known, standing[period])
            return loss(u @ v.T / log_temperature.exp().clamp(0.02, 1.0), candidates, batch)

        shared_loss, loss_value = parallel.averaged(step_loss, parameters, seed), 0.0
        for step in range(steps):
            p = int(draw.choice(len(counts), p=chance / chance.sum()))
            from_us, to_us = int(ends[p + 1]), int(ends[p + 2])
            who = np.sort(draw.choice(users_of[p], min(parallel.part(config.batch), counts[p]), replace=False))
            moments_us = timeline.moments(who, from_us, to_us, draw)
            batch = timeline.batch(who, from_us, to_us, moments_us)
            candidates = timeline.candidates(batch, config.candidates, draw)
            shown = torch.as_tensor((draw.random((len(who), 1)) >= config.unknown_user).astype(np.float32))
            attributes = np.concatenate([who[:, None] + 1, log.attributes[who]], axis=1)
            inputs = padded_inputs(*sessions.before(who, moments_us), attributes)
            tensors = {name: torch.as_tensor(column) for name, column in inputs.items()}
            now = shared_loss(p, tensors, shown, batch, candidates)
            optimiser.zero_grad(set_to_none=True)
            now.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            loss_value = loss_value * 0.95 + 0.05 * float(now.detach()) if step else float(now.detach())
            progress("two-tower", step + 1, steps)
        users.eval()
        items.eval()
        with torch.no_grad():
            users.crowd.fill_(float(np.log(config.crowd / (1 - config.crowd))))
            users.user.weight[1:] = torch.as_tensor(past.of_all(timeline, log.until_us))
            every = torch.split(torch.arange(n_items), 8192)
            out = torch.cat([items(chunk, known, standing[-1]) for chunk in every])
    return TwoTowerModel(
        users.cpu(),
        out.numpy(force=True),
        float(log_temperature.detach().exp().clamp(0.02, 1.0)),
        steps,
        loss_value,
    )


def _begin(table: nn.Embedding, start: NDArray[np.float32]) -> None:
    """Rows from 1 on begin at `start`, row 0 at zero."""
    with torch.no_grad():
        table.weight[0] = 0.0
        table.weight[1:] = torch.as_tensor(start)
