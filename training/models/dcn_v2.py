"""DCN-V2: full-rank cross layers beside a deep tower over ranking rows, calibrated.

Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021 (the parallel form). Standardisation, the casts of
categorical columns and the calibration are part of the network, so that the exported graph takes the raw rows of
features/ranking.py and nothing else. R rows, F columns, U users, K candidates of one, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from contracts.framing import Costs
from features.ranking import CLOCK_COLUMNS, RowSchema
from training import parallel
from training.determinism import deterministic
from training.export import export_onnx
from training.models.dcn_weights import DcnWeights, Layer
from training.progress import Progress, silent

CLIP = 6.0  # standard deviations: no outlier of a new day may leave the range that was learnt
MIN_MOMENTS = 24  # fewer distinct values than this teach nothing about the clock
STANDARDISED_AT_ONCE = 100_000  # rows


@dataclass(frozen=True, slots=True)
class DcnConfig:
    cross_layers: int = 2
    hidden: tuple[int, ...] = (64,)
    embedding: int = 4
    dropout: float = 0.3
    # All users of a moment share its items, so that an item's exact figures name it, and a ranker that knows items by
    # name is wrong a month later: training blurs the figures (in standard deviations) and hides the names this often.
    noise: float = 1.0
    forget: float = 0.9
    epochs: int = 4
    min_steps: int = 200  # more epochs where the users are few
    patience: int = 5  # epochs without a better NDCG@10 on the held-out users
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    users_per_batch: int = 32
    rows_per_user: int = 60  # all positives first, then fresh random candidates every epoch
    listwise: float = 0.5  # weight of the softmax over one user's rows; the rest is binary cross-entropy


@dataclass(frozen=True, slots=True)
class RankingRows:
    """Rows of several users' candidates, one user after another. labels: int8 [R]; indptr: int64 [U + 1].

    user_ids: U names, of which one may come twice (two moments of one person); empty where nobody asks. gains: float32
    [R], what the wish of a positive row is worth; empty: 1 each.
    """

    rows: NDArray[np.float32]
    labels: NDArray[np.int8]
    indptr: NDArray[np.int64]
    user_ids: tuple[str, ...] = ()
    gains: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    @property
    def n_users(self) -> int:
        return len(self.indptr) - 1

    @property
    def users(self) -> NDArray[np.int64]:
        """int64 [R]: the position of each row's user."""
        return np.repeat(np.arange(self.n_users), np.diff(self.indptr))

    @property
    def people(self) -> NDArray[np.int64]:
        """int64 [R]: the person of each row, the same one at several moments; as `users` where nobody has a name."""
        if not self.user_ids:
            return self.users
        return np.repeat(np.unique(np.array(self.user_ids), return_inverse=True)[1], np.diff(self.indptr))

    def take(self, users: NDArray[np.int64]) -> "RankingRows":
        """Of some users, in the order given."""
        return RankingRows.join([self], users)

    @property
    def worth(self) -> NDArray[np.float32]:
        """`gains` in full, float32 [R]."""
        return self.gains if len(self.gains) else np.ones(len(self.labels), np.float32)

    def weights(self, costs: Costs) -> NDArray[np.float32]:
        """What an error on each row costs, as a multiple of their mean: float32 [R]."""
        cost = np.where(self.labels > 0, self.worth * costs.false_negative, costs.false_positive)
        return (cost / cost.mean(dtype=np.float64)).astype(np.float32) if len(cost) else cost.astype(np.float32)

    def without(self, schema: RowSchema, columns: Sequence[str]) -> "RankingRows":
        """The same rows that know nothing of `columns`."""
        if not columns:
            return self
        rows = self.rows.copy()
        rows[:, [schema.at(name) for name in columns]] = 0
        return replace(self, rows=rows)

    @classmethod
    def join(cls, parts: Sequence["RankingRows"], users: NDArray[np.int64] | None = None) -> "RankingRows":
        """One after the other. users: of them all, by position, those of an earlier part first; everybody unless given.

        Each row is copied once and nothing is held beside: rows of several moments are gigabytes.
        """
        first = np.cumsum([0, *(part.n_users for part in parts)])
        chosen = np.arange(first[-1]) if users is None else users
        own = [chosen[(chosen >= a) & (chosen < b)] - a for a, b in pairwise(first.tolist())]
        counts = np.concatenate([np.diff(part.indptr)[mine] for part, mine in zip(parts, own, strict=True)])
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.empty((int(indptr[-1]), parts[0].rows.shape[1]), np.float32)
        labels = np.empty(len(rows), np.int8)
        gains = np.empty(len(rows) if any(len(part.gains) for part in parts) else 0, np.float32)
        names: list[str] = []
        end = 0
        for part, mine in zip(parts, own, strict=True):
            size = np.diff(part.indptr)[mine]
            at = np.repeat(part.indptr[mine] - np.cumsum(size) + size, size) + np.arange(size.sum())
            begin, end = end, end + len(at)
            # Another mode than `clip` would make the copy twice.
            np.take(part.rows, at, axis=0, out=rows[begin:end], mode="clip")
            np.take(part.labels, at, out=labels[begin:end], mode="clip")
            if len(gains):
                gains[begin:end] = part.worth[at]
            names += [part.user_ids[user] for user in mine.tolist()] if part.user_ids else []
        return cls(rows, labels, indptr, tuple(names) if all(part.user_ids for part in parts) else (), gains)


def standardise(rows: NDArray[np.float32], schema: RowSchema) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and scale of the dense columns, float32 [dense]. A scale of 0 takes a column out of the model.

    Out go constant columns, and clock columns that were seen at a few moments only: they would name the moment.
    """
    dense = [at for at, column in enumerate(schema.columns) if column.kind == "dense"]
    seen = StandardScaler()
    for start in range(0, len(rows), STANDARDISED_AT_ONCE):  # in double precision, and never all rows in it at once
        seen.partial_fit(rows[start : start + STANDARDISED_AT_ONCE, dense].astype(np.float64))
    deviation = np.sqrt(seen.var_)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6)
    for name in CLOCK_COLUMNS:
        at = schema.at(name)
        if len(np.unique(rows[:, at])) < MIN_MOMENTS:
            scale[dense.index(at)] = 0.0
    return seen.mean_.astype(np.float32), scale.astype(np.float32)


def _table(size: int, width: int) -> nn.Embedding:
    table = nn.Embedding(size, width)
    nn.init.normal_(table.weight, std=0.02)  # a value that was never met stays near nothing
    return table


class Cross(nn.Module):
    """x0 ⊙ (W x + b) + x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        return torch.addcmul(x, first, self.linear(x))


class DcnV2(nn.Module):
    """rows float32 [R, F] → calibrated probability float32 [R]."""

    mean: Tensor
    scale: Tensor
    calibration: Tensor

    def __init__(self, schema: RowSchema, mean: NDArray[np.float32], scale: NDArray[np.float32], config: DcnConfig):
        super().__init__()
        self.n_dense = sum(column.kind == "dense" for column in schema.columns)
        self.noise, self.forget = config.noise, config.forget
        self.sizes = [column.size for column in schema.columns if column.kind == "categorical"]
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        self.embeddings = nn.ModuleList(_table(size, config.embedding) for size in self.sizes)
        width = self.n_dense + config.embedding * len(self.sizes)
        self.cross = nn.ModuleList(Cross(width) for _ in range(config.cross_layers))
        layers: list[nn.Module] = []
        size = width
        for hidden in config.hidden:
            layers += [nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
            size = hidden
        self.deep = nn.Sequential(*layers)
        self.out = nn.Linear(width + size, 1)

    def logits(self, rows: Tensor) -> Tensor:
        """Before calibration, float32 [R]."""
        dense = ((rows[:, : self.n_dense] - self.mean) * self.scale).clamp(-CLIP, CLIP)
        if self.training:
            dense = dense + self.noise * torch.randn_like(dense) * (self.scale > 0)
        parts = [dense]
        for at, (table, size) in enumerate(zip(self.embeddings, self.sizes, strict=True)):
            index = rows[:, self.n_dense + at].clamp(0, size - 1).to(torch.int64)
            if self.training:
                index = index * (torch.rand(index.shape) >= self.forget)
            parts.append(table(index))
        first = torch.cat(parts, dim=1)
        x = first
        for layer in self.cross:
            x = layer(first, x)
        return torch.squeeze(self.out(torch.cat([x, self.deep(first)], dim=1)), 1)

    @property
    def tells_apart(self) -> list[bool]:
        """Of each categorical column, whether its values differ to this network."""
        return [bool((t.weight != t.weight[0]).any()) for t in self.embeddings if isinstance(t, nn.Embedding)]

    def forward(self, rows: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(rows) * self.calibration[0] + self.calibration[1])


def fit_dcn(
    schema: RowSchema,
    train: RankingRows,
    held_out: RankingRows,
    *,
    seed: int,
    config: DcnConfig | None = None,
    costs: Costs | None = None,
    progress: Progress = silent,
) -> DcnV2:
    """Learn on `train`; stop and calibrate (Platt) on `held_out`, the rows of other users.

    costs: of errors, which with the gains of the rows weigh the loss. Stopping is by NDCG@10 with those gains, to which
    errors have no cost; calibration is by labels alone.

    Without held-out positives the last epoch stands and the calibration matches the base rate of `train`.
    """
    config = config or DcnConfig()
    with deterministic(seed) as generator:
        model = DcnV2(schema, *standardise(train.rows, schema), config)
        rows, labels, present = _padded(train)
        weights = torch.as_tensor(train.weights(costs or Costs()))
        gains = torch.as_tensor(train.worth)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=False
        )
        batches = max(-(-train.n_users // config.users_per_batch), 1)
        epochs = max(config.epochs, -(-config.min_steps // batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, config.learning_rate, total_steps=max(epochs * batches, 2), pct_start=0.1
        )
        shared_loss, draws = parallel.averaged(_loss, model.parameters(), seed), parallel.own(generator)
        best, best_state, waited = -1.0, None, 0
        for epoch in range(epochs):
            model.train()
            order = torch.randperm(train.n_users, generator=generator)
            for start in range(0, train.n_users, config.users_per_batch):
                users = parallel.share(order[start : start + config.users_per_batch])
                loss = shared_loss(model, rows, labels[users], present[users], weights, gains, draws, config)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimiser.step()
                schedule.step()
            progress("DCN-V2", epoch + 1, epochs)
            reached = parallel.agreed(lambda: held_out_ndcg(predict(model, held_out.rows, raw=True), held_out))
            if np.isfinite(reached):
                if reached > best:
                    best, waited = reached, 0
                    best_state = {name: value.clone() for name, value in model.state_dict().items()}
                else:
                    waited += 1
                    if waited >= config.patience:
                        break
        if best_state is not None:
            model.load_state_dict(best_state)
        progress("DCN-V2", epochs, epochs)
        _forget_what_was_hidden(model, train.rows)
        model.eval()
        source = held_out if held_out.labels.any() else train
        slope, offset = platt(predict(model, source.rows, raw=True), source.labels)
        model.calibration.copy_(torch.tensor([slope, offset]))
    return model.cpu()


def _padded(data: RankingRows) -> tuple[Tensor, Tensor, Tensor]:
    """Rows as they are; labels float32 [U, K] with NaN where padded, and the row number of each place."""
    counts = np.diff(data.indptr)
    longest = int(counts.max(initial=1))
    place = data.indptr[:-1, None] + np.arange(longest)[None, :]
    inside = np.arange(longest)[None, :] < counts[:, None]
    place = np.where(inside, place, 0)
    labels = np.where(inside, data.labels[place] if len(data.labels) else 0.0, np.nan)
    return torch.as_tensor(data.rows), torch.as_tensor(labels.astype(np.float32)), torch.as_tensor(place)


def _forget_what_was_hidden(model: DcnV2, rows: NDArray[np.float32]) -> None:
    """A category that no row knew says nothing when it comes: its embeddings are that of the unknown."""
    with torch.no_grad():
        for at, table in enumerate(model.embeddings):
            if isinstance(table, nn.Embedding) and not rows[:, model.n_dense + at].any():
                table.weight[:] = table.weight[0].clone()


def _loss(
    model: DcnV2,
    rows: Tensor,
    labels: Tensor,
    place: Tensor,
    weights: Tensor,
    gains: Tensor,
    generator: torch.Generator,
    config: DcnConfig,
) -> Tensor:
    take = min(config.rows_per_user, labels.shape[1])
    key = torch.rand(labels.shape, generator=generator) - 2 * labels
    chosen = torch.where(torch.isnan(labels), torch.inf, key).topk(take, dim=1, largest=False).indices
    label = labels.gather(1, chosen)
    inside = ~torch.isnan(label)
    label = torch.nan_to_num(label)
    at = place.gather(1, chosen)
    logits = model.logits(rows[at.flatten()]).view(label.shape)
    binary = nn.functional.binary_cross_entropy_with_logits(logits[inside], label[inside], weights[at][inside])
    share = torch.log_softmax(logits.masked_fill(~inside, -1e9), dim=1)
    wanted = label * gains[at]
    positives = wanted.sum(dim=1)
    listwise = -(share * wanted).sum(dim=1) / positives.where(positives > 0, 1)
    # Users weigh alike in NDCG, so they do here.
    return (1 - config.listwise) * binary + config.listwise * listwise[positives > 0].sum() / (
        positives > 0
    ).sum().clamp(min=1)


def predict(model: DcnV2, rows: NDArray[np.float32], *, raw: bool = False, chunk: int = 65536) -> NDArray[np.float32]:
    """Probabilities, or logits before calibration with `raw`, float32 [R]."""
    model.eval()
    call = model.logits if raw else model
    with torch.inference_mode():
        parts = [call(torch.as_tensor(rows[at : at + chunk])).numpy(force=True) for at in range(0, len(rows), chunk)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def user_ndcg(scores: NDArray[np.float32], data: RankingRows, k: int = 10) -> NDArray[np.float64]:
    """NDCG@k of each user with a positive candidate, within their candidates; a hit gains what the wish is worth."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    gains = np.where(data.labels > 0, data.worth, 0).astype(np.float64)
    values = []
    for start, end in zip(data.indptr[:-1], data.indptr[1:], strict=True):
        gain = gains[start:end]
        if gain.any():
            shown = gain[np.argsort(-scores[start:end], kind="stable")[:k]]
            best = np.sort(gain)[::-1][:k]
            values.append(float(shown @ discount[: len(shown)]) / float(best @ discount[: len(best)]))
    return np.array(values)


def held_out_ndcg(scores: NDArray[np.float32], data: RankingRows, k: int = 10) -> float:
    """Mean of `user_ndcg`; NaN without such users."""
    values = user_ndcg(scores, data, k)
    return float(values.mean()) if len(values) else float("nan")


def platt(logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> tuple[float, float]:
    """Slope (> 0) and offset of sigmoid(slope × logit + offset): Platt 1999, with his smoothed targets, by Newton."""
    x = logits.astype(np.float64)
    n_pos = float(labels.sum())
    n_neg = len(labels) - n_pos
    if not len(x):
        return 1.0, 0.0
    base = float(np.log((n_pos + 1) / (n_neg + 1)))
    if not n_pos or not n_neg or x.std() < 1e-9:
        return 1.0, base - float(x.mean())
    target = np.where(labels > 0, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
    slope, offset = 1.0, base - float(x.mean())
    design = np.column_stack([x, np.ones_like(x)])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(slope * x + offset, -40, 40)))
        gradient = design.T @ (p - target)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        slope, offset = slope - float(step[0]), offset - float(step[1])
        if np.abs(step).max() < 1e-8:
            break
    # A slope that is not positive would turn the order round: then only the base rate is kept.
    return (slope, offset) if slope > 1e-3 else (1e-3, base - 1e-3 * float(x.mean()))


def weights_of(model: DcnV2) -> DcnWeights:
    """The fitted model as plain arrays."""

    def layer(linear: nn.Linear) -> Layer:
        return linear.weight.detach().numpy().T.copy(), linear.bias.detach().numpy().copy()

    slope, offset = model.calibration.tolist()
    return DcnWeights(
        mean=model.mean.numpy().copy(),
        scale=model.scale.numpy().copy(),
        clip=CLIP,
        tables=[t.weight.detach().numpy().copy() for t in model.embeddings if isinstance(t, nn.Embedding)],
        cross=[layer(cross.linear) for cross in model.cross if isinstance(cross, Cross)],
        deep=[layer(part) for part in model.deep if isinstance(part, nn.Linear)],
        out=model.out.weight.detach().numpy()[0].copy(),
        out_bias=float(model.out.bias.item()),
        slope=slope,
        offset=offset,
    )


def export_dcn(model: DcnV2, path: Path) -> float:
    """Write dcn.onnx (`rows` float32 [R, F] → `score` float32 [R]) by rename; the largest difference from PyTorch.

    Raises:
        ArtifactError: they differ by more than 1e-4.
    """
    random = np.random.default_rng(0)
    rows = random.normal(size=(257, model.n_dense + len(model.sizes))).astype(np.float32)
    spread = model.scale.numpy()
    rows[:, : model.n_dense] = model.mean.numpy() + rows[:, : model.n_dense] / np.where(spread > 0, spread, 1.0)
    for at, size in enumerate(model.sizes):
        rows[:, model.n_dense + at] = random.integers(0, size, len(rows))
    part = path.with_name(path.name + ".part")
    difference = export_onnx(model, {"rows": rows}, "score", part)
    part.rename(path)
    return difference
