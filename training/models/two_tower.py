"""Two-tower retrieval: a user tower over attributes and the last interactions, an item tower over content and id.

Trained by in-batch sampled softmax with log-Q correction (Yi et al., "Sampling-bias-corrected neural modeling for
large corpus item recommendations", RecSys 2019). Both towers end in 128 dimensions of unit length; the score is their
dot product. An example is (what the user had done strictly before, what the user then did); examples are drawn with a
probability that decays with their age, so that the model speaks of now.

What is wanted changes faster than ids can tell, so the item tower also reads an item's standing (decayed counts, age).
A batch is drawn from one period of the log, with standings as of that period's begin: the tower learns what a standing
then said about the days to come, never from counts that hold the target itself. The export reads standings of the cut.

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
from training.interactions import DAY_US, HOUR_US, Log, Positives, decay
from training.progress import Progress, silent

AGE_BUCKETS = 16
STANDING_HALF_LIVES_D = (3.0, 14.0, 60.0)
STANDING = 2 * len(STANDING_HALF_LIVES_D) + 2
MIN_PERIODS, MAX_PERIODS = 12, 52
PRICE_BUCKETS = 16


class TwoTowerConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(6.0, gt=0, description="passes over the examples, before the caps below")
    min_steps: int = Field(100, ge=1)
    max_steps: int = Field(200, ge=1)
    batch: int = Field(1024, ge=2)
    learning_rate: float = Field(3e-3, gt=0)
    period_d: float = Field(7.0, gt=0, description="length of a period; at least 12 cover the log, at most 52 are used")
    half_life_d: float = Field(60.0, gt=0, description="an example's chance to be drawn halves this often")
    hidden: int = Field(256, ge=8)
    dropout: float = Field(0.5, ge=0, lt=1)
    unknown_user: float = Field(0.5, ge=0, le=1, description="share of examples whose user is hidden")
    unknown_item: float = Field(0.5, ge=0, le=1, description="share of items whose id is hidden")
    title_buckets: int = Field(1 << 14, ge=16)
    crowd: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="weight of the crowd's dimension in the bundle; training trusts taste too much",
    )
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


def with_last(x: Tensor, last: Tensor) -> Tensor:
    """`x` [B, D] with its last dimension replaced by `last` [B, 1] in [-1, 1], the whole of unit length.

    That dimension carries what all users share (an item's worth to the crowd), so that the others need not.
    """
    own = normalize(x[:, : EMBEDDING_DIM - 1], dim=-1)
    return torch.cat([own * torch.sqrt(torch.clamp(1.0 - last * last, min=1e-6)), last], dim=-1)


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
        for table in (self.id, self.category, self.creator, self.price, self.title):
            nn.init.normal_(table.weight, std=0.05)
        nn.init.zeros_(self.id.weight)

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
        crowd = torch.sigmoid(self.crowd) + torch.zeros_like(who[:, :1])
        return with_last(self.apart(who + session + self.mix(both)), crowd)


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


def standings(
    positives: Positives, published_us: NDArray[np.int64], moments_us: NDArray[np.int64]
) -> NDArray[np.float32]:
    """How items stand as of each moment, from events strictly before it: float32 [moments, N, STANDING].

    For each half-life the count against the mean item's, as a logarithm and as a capped ratio; then the item's age,
    as a logarithm and as a freshness that halves every two weeks.
    """
    out = np.zeros((len(moments_us), len(published_us), STANDING), dtype=np.float32)
    order = np.argsort(positives.timestamp_us, kind="stable")
    time, item, weight = positives.timestamp_us[order], positives.item[order], positives.weight[order]
    for m, moment in enumerate(moments_us.tolist()):
        until = int(np.searchsorted(time, moment, side="left"))
        for h, half_life_d in enumerate(STANDING_HALF_LIVES_D):
            decayed = weight[:until] * decay(time[:until], moment, half_life_d)
            count = np.bincount(item[:until], weights=decayed, minlength=len(published_us))
            ratio = count / max(float(count.mean()), 1e-9)
            out[m, :, 2 * h] = np.log(ratio + 0.01)
            out[m, :, 2 * h + 1] = np.minimum(ratio, 10.0) / 3
        age_d = np.maximum(0.0, (moment - published_us) / DAY_US)
        out[m, :, -2] = np.log1p(age_d) - 3
        out[m, :, -1] = 2 * np.exp2(-age_d / 14)
    return out


def period_ends(log: Log, period_d: float) -> NDArray[np.int64]:
    """Moments that part the log into periods, the last one the cut: int64 [periods + 1], in order."""
    first = int(log.timestamp_us.min())
    length = min(period_d * DAY_US, max((log.until_us - first) / MIN_PERIODS, 1.0))
    periods = int(np.clip(np.ceil((log.until_us - first) / length), 1, MAX_PERIODS))
    return (log.until_us - length * np.arange(periods, -1, -1)).astype(np.int64)


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
    met = torch.from_numpy(np.bincount(target_item, minlength=n_items) > 0)
    batch = min(config.batch, max(2, len(ex.target)))
    ends = period_ends(log, config.period_d)
    standing = torch.from_numpy(standings(log.positives(), catalogue.published_us, ends))
    # The first period is everything before the second: it is drawn only where it is all there is.
    period = np.clip(np.searchsorted(ends, log.timestamp_us[ex.history_events[ex.target]], side="right") - 1, 0, None)
    period = np.minimum(period, len(ends) - 2)
    members = [np.flatnonzero(period == p) for p in range(len(ends) - 1)]
    period_chance = np.array([ex.chance[m].sum() for m in members])
    if len(members) > 1 and period_chance[1:].sum() > 0:
        period_chance[0] = 0.0
    period_chance = np.cumsum(period_chance / period_chance.sum())
    steps = int(np.clip(config.epochs * len(ex.target) / batch, config.min_steps, config.max_steps))

    with deterministic(seed):
        draw = np.random.default_rng(seed)
        items = ItemTower(n_items, ItemFeatures.of(catalogue, titles, config.title_buckets), config)
        users = UserTower(n_items, log.n_users, [len(log.attribute_values[c]) for c in log.attribute_columns], config)
        log_temperature = nn.Parameter(torch.tensor(np.log(0.06), dtype=torch.float32))
        parameters = [*items.parameters(), *users.parameters(), log_temperature]
        optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, config.learning_rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
        )
        loss_value = 0.0
        for step in range(steps):
            p = min(int(np.searchsorted(period_chance, draw.random(), side="right")), len(members) - 1)
            chance = ex.chance[members[p]] / ex.chance[members[p]].sum()
            rows = draw.choice(members[p], batch, p=chance)
            q = np.bincount(target_item[members[p]], weights=chance, minlength=n_items)
            event = ex.history_events[ex.target[rows]]
            user = log.user[event]
            attributes = np.concatenate([user[:, None] + 1, log.attributes[user]], axis=1).astype(np.int64)
            attributes[draw.random(batch) < config.unknown_user, 0] = 0
            inputs = padded_inputs(*histories(log, ex, rows), attributes)
            wanted = torch.from_numpy(target_item[rows])
            negatives, where = torch.unique(wanted, return_inverse=True)
            temperature = log_temperature.exp().clamp(0.02, 1.0)
            u = users(**{k: torch.from_numpy(v) for k, v in inputs.items()})
            v = items(negatives, met, standing[p])
            # The chance that an item is in the batch at all: each distinct item stands once among the negatives.
            in_batch = np.log(-np.expm1(batch * np.log1p(-np.minimum(q[negatives.numpy()], 0.999999))))
            logits = u @ v.T / temperature - torch.from_numpy(in_batch.astype(np.float32))
            loss = cross_entropy(logits, where)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            loss_value = loss_value * 0.95 + 0.05 * float(loss.detach()) if step else float(loss.detach())
            progress("two-tower", step + 1, steps)
        with torch.no_grad():
            users.crowd.fill_(float(np.log(config.crowd / (1 - config.crowd))))
        users.eval()
        items.eval()
        with torch.no_grad():
            out = torch.cat([items(chunk, met, standing[-1]) for chunk in torch.split(torch.arange(n_items), 8192)])
    return TwoTowerModel(
        users, out.numpy().astype(np.float32), float(log_temperature.detach().exp().clamp(0.02, 1.0)), steps, loss_value
    )
