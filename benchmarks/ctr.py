"""A click model on MovieLens: is a rating 4 stars or more? DCN-V2 beside one-hot logistic regression, by time.

The first 80 % of the ratings are learned from, the next 10 % choose (regularisation, epochs), the last 10 % are read
once; what was chosen is fitted again on the first 90 %. Columns know only what was before: an id that was never learned
is unknown; the past of users and items is counted up to the row's own moment, as an online store would have it, also in
what is tried. Logistic regression is asked with that past too, so that one sees what is due to it.
R rows, C categorical columns, D dense ones.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import binary_cross_entropy_with_logits

from contracts.dataset import INTERACTIONS, ITEMS, USERS
from contracts.errors import DataError
from features import duck
from features.ranking import Column, RowSchema
from training.data.movielens import USER_COLUMNS, import_movielens
from training.determinism import deterministic
from training.evaluation.metrics import auc, log_loss
from training.models.dcn_v2 import DcnConfig, DcnV2, predict

LIKED = 4.0
LEARNED, CHOSEN_BY = 0.8, 0.1
PRIOR = 5.0  # ratings that a user or item counts as having had before its first, at the share of all
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # C of logistic regression
MOST_STEPS = 5_000  # it converges long before
EPOCHS = 20
PATIENCE = 4
BATCH = 512
LEARNING_RATE = 2e-3
DRAWS = 200  # of the bootstrap over users
# No blur and little hidden: here one window teaches, and ids are what the task is about.
CONFIG = DcnConfig(cross_layers=2, hidden=(64,), embedding=8, dropout=0.2, noise=0.0, forget=0.15, weight_decay=0.3)


@dataclass(frozen=True, slots=True)
class Rows:
    """codes: int64 [R, C], 0 unknown; past: float32 [R, D]; liked: int8 [R]; user: int64 [R]."""

    codes: NDArray[np.int64]
    past: NDArray[np.float32]
    liked: NDArray[np.int8]
    user: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.liked)

    def whole(self) -> NDArray[np.float32]:
        """As DCN-V2 takes them: dense columns first."""
        return np.concatenate([self.past, self.codes], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Task:
    """What is learned from, and what it is tried on; columns as of the end of what is learned from."""

    schema: RowSchema
    learned: Rows
    tried: Rows


# --- the data ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ratings:
    """In the order of time, [R]. words: column → a word of each row, "" where it is not known; genres: bool [R, G]."""

    at_us: NDArray[np.int64]
    liked: NDArray[np.int8]
    words: Mapping[str, NDArray[np.str_]]
    genres: NDArray[np.bool_]
    genre_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.at_us)


def read_ratings(source: Path) -> Ratings:
    """Any edition that `streamrec data import movielens` reads.

    Raises:
        NotFound, DataError: as the import does.
    """
    with tempfile.TemporaryDirectory(prefix="streamrec-ctr-") as temporary, duck.connect() as db:
        folder = Path(temporary) / "data"
        import_movielens(source, folder)
        there = (folder / USERS).exists()
        own = "".join(f", coalesce(u.{name}, '') AS {name}" for name in USER_COLUMNS) if there else ""
        people = f"LEFT JOIN read_parquet('{folder / USERS}') u USING (user_id)" if there else ""
        found = db.sql(
            f"SELECT epoch_us(timestamp) AS at_us, value, user_id, item_id, coalesce(i.genres, '') AS genres {own} "  # noqa: S608
            f"FROM read_parquet('{folder / INTERACTIONS}') JOIN read_parquet('{folder / ITEMS}') i USING (item_id) "
            f"{people} ORDER BY at_us, user_id, item_id"
        ).to_arrow_table()
    columns = ["user_id", "item_id", *(USER_COLUMNS if there else ())]
    words = {name: np.asarray(found[name].to_pylist(), np.str_) for name in columns}
    of_row = [set(text.split("|")) - {""} for text in found["genres"].to_pylist()]
    names = tuple(sorted(set().union(*of_row)))
    genres = np.array([[name in some for name in names] for some in of_row], bool).reshape(len(of_row), len(names))
    liked = (found["value"].to_numpy() >= LIKED).astype(np.int8)
    return Ratings(found["at_us"].to_numpy(), liked, words, genres, names)


def task(ratings: Ratings, learned_until: int, tried_until: int) -> Task:
    """Rows before `learned_until` to learn from, the ones up to `tried_until` to try it on (places in the order of
    time)."""
    learned, tried = slice(0, learned_until), slice(learned_until, tried_until)
    columns, codes = [], []
    for name, words in ratings.words.items():
        known = np.unique(words[learned])
        place = np.clip(np.searchsorted(known, words[:tried_until]), 0, len(known) - 1)
        codes.append(np.where(known[place] == words[:tried_until], place + 1, 0))
        columns.append(Column(name, "categorical", len(known) + 1))
    past = past_of(ratings, learned_until)[:tried_until]
    dense = [*PAST, *(f"genre_{name}" for name in ratings.genre_names)]
    values = np.concatenate([past, ratings.genres[:tried_until]], axis=1).astype(np.float32)
    code = np.stack(codes, axis=1).astype(np.int64)
    _, user = np.unique(ratings.words["user_id"], return_inverse=True)

    def rows(part: slice) -> Rows:
        return Rows(code[part], values[part], ratings.liked[part], user[part])

    return Task(RowSchema((*(Column(name) for name in dense), *columns)), rows(learned), rows(tried))


PAST = ("user_share", "user_count", "item_share", "item_count", "shares")


def past_of(ratings: Ratings, learned_until: int) -> NDArray[np.float32]:
    """float32 [R, 5]: of the row's user and item the share of liked ratings (towards that of all) and the logarithm of
    their number, and the product of both shares; from ratings strictly before the row's moment. The share of all is
    that of the first `learned_until`."""
    liked = ratings.liked.astype(np.float64)
    overall = float(liked[:learned_until].mean())
    parts = []
    for name in ("user_id", "item_id"):
        _, code = np.unique(ratings.words[name], return_inverse=True)
        order = np.lexsort((np.arange(len(code)), code))
        # Where the group of (id, moment) begins, and where the id does: what lies between is the past.
        new_id = np.r_[True, code[order][1:] != code[order][:-1]]
        new_moment = new_id | np.r_[True, ratings.at_us[order][1:] != ratings.at_us[order][:-1]]
        place = np.arange(len(code))
        start, here = (np.maximum.accumulate(np.where(new, place, 0)) for new in (new_id, new_moment))
        good = np.r_[0.0, np.cumsum(liked[order])]
        count, sum_good = here - start, good[here] - good[start]
        out = np.empty((len(code), 2))
        out[order, 0] = (sum_good + PRIOR * overall) / (count + PRIOR)
        out[order, 1] = np.log1p(count)
        parts.append(out)
    user, item = parts
    return np.concatenate([user, item, user[:, :1] * item[:, :1]], axis=1).astype(np.float32)


# --- the contestants: (what to learn from, what to try on, …) → probabilities -----------------------------------------


def one_hot(rows: Rows, schema: RowSchema, *, past: bool) -> csr_matrix:
    """Every value of every categorical column as a column of its own, and the genres; past: and the five numbers."""
    sizes = [column.size for column in schema.columns if column.kind == "categorical"]
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    n, c = rows.codes.shape
    places = ((rows.codes + offsets).ravel(), np.arange(0, n * c + 1, c))
    hot = csr_matrix((np.ones(n * c, np.float32), *places), shape=(n, int(sum(sizes))))
    return csr_matrix(hstack([hot, csr_matrix(rows.past if past else rows.past[:, len(PAST) :])]))


def logistic(work: Task, strength: float, *, past: bool) -> NDArray[np.float64]:
    """Its numbers standardised, or the solver stops short of the best weights."""
    numbers = work.learned.past[:, : len(PAST)]
    middle, scale = np.zeros((2, work.learned.past.shape[1]), np.float32)
    scale[:] = 1
    middle[: len(PAST)], scale[: len(PAST)] = numbers.mean(axis=0), np.maximum(numbers.std(axis=0), 1e-6)

    def scaled(rows: Rows) -> Rows:
        return Rows(rows.codes, (rows.past - middle) / scale, rows.liked, rows.user)

    model = LogisticRegression(C=strength, max_iter=MOST_STEPS)
    model.fit(one_hot(scaled(work.learned), work.schema, past=past), work.learned.liked)
    found: NDArray[np.float64] = model.predict_proba(one_hot(scaled(work.tried), work.schema, past=past))[:, 1]
    return found


def dcn(work: Task, seed: int, epochs: int, see: Callable[[NDArray[np.float32]], bool] | None = None) -> DcnV2:
    """Our ranker's network, on binary cross-entropy. see: takes the probabilities after each epoch; true ends it."""
    rows, labels = torch.from_numpy(work.learned.whole()), torch.from_numpy(work.learned.liked.astype(np.float32))
    tried = work.tried.whole()
    with deterministic(seed) as generator:
        mean, deviation = work.learned.past.mean(axis=0), work.learned.past.std(axis=0)
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6)
        model = DcnV2(work.schema, mean, scale, CONFIG)
        optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=CONFIG.weight_decay)
        for _ in range(epochs):
            model.train()
            for at in torch.split(torch.randperm(len(rows), generator=generator), BATCH):
                loss = binary_cross_entropy_with_logits(model.logits(rows[at]), labels[at])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            if see is not None and see(predict(model, tried)):
                break
    return model


def best_epochs(work: Task, seed: int) -> int:
    reached: list[float] = []

    def see(probabilities: NDArray[np.float32]) -> bool:
        reached.append(auc(probabilities, work.tried.liked))
        return len(reached) - int(np.argmax(reached)) > PATIENCE

    dcn(work, seed, EPOCHS, see)
    return int(np.argmax(reached)) + 1


# --- the run ----------------------------------------------------------------------------------------------------------


def run(source: Path, seeds: int = 3, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """AUC and log loss on the last ratings: mean over seeds with its standard error; the difference from one-hot
    logistic regression with the standard error of a bootstrap over users.

    Raises:
        NotFound, DataError: no MovieLens, or one class only.
    """
    progress("reading")
    ratings = read_ratings(source)
    n = len(ratings)
    first, second = int(n * LEARNED), int(n * (LEARNED + CHOSEN_BY))
    choosing, judging = task(ratings, first, second), task(ratings, second, n)
    for part in (choosing.learned, choosing.tried, judging.tried):
        if not 0 < part.liked.sum() < len(part):
            raise DataError(f"{source} is too small or has one kind of rating only: nothing to tell apart")
    found: dict[str, list[NDArray[np.floating[Any]]]] = {}
    chosen: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for name, past in (("logistic one-hot", False), ("logistic with the past", True)):
        progress(name)
        started = time.process_time()
        strength = max(STRENGTHS, key=lambda c: auc(logistic(choosing, c, past=past), choosing.tried.liked))
        found[name] = [logistic(judging, strength, past=past)]
        chosen[name], seconds[name] = {"C": strength}, time.process_time() - started
    started = time.process_time()
    found["dcn_v2"], epochs = [], []
    for seed in range(seeds):
        progress(f"DCN-V2, seed {seed}")
        epochs.append(best_epochs(choosing, seed))
        found["dcn_v2"].append(predict(dcn(judging, seed, epochs[-1]), judging.tried.whole()))
    chosen["dcn_v2"], seconds["dcn_v2"] = {"epochs": epochs}, (time.process_time() - started) / seeds
    base = found["logistic one-hot"][0]
    known = judging.tried.codes[:, :2] > 0
    return {
        "ratings": n,
        "tested": len(judging.tried),
        "liked": float(judging.tried.liked.mean()),
        "rows_of_known_users": float(known[:, 0].mean()),
        "rows_of_known_items": float(known[:, 1].mean()),
        "contestants": {
            name: {
                "auc": _mean([auc(answer, judging.tried.liked) for answer in answers]),
                "log_loss": _mean([log_loss(answer, judging.tried.liked) for answer in answers]),
                "over_one_hot": _over(answers, base, judging.tried),
                "chosen": chosen[name],
                "cpu_s": round(seconds[name], 1),
            }
            for name, answers in found.items()
        },
    }


def _mean(values: list[float]) -> dict[str, Any]:
    """se: over seeds; None for what has none."""
    se = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "se": se, "each": [float(v) for v in values]}


def _over(answers: list[NDArray[np.floating[Any]]], base: NDArray[np.floating[Any]], rows: Rows) -> dict[str, float]:
    """AUC less that of `base`, mean over seeds; se: of the difference of the mean scores when users are drawn anew."""
    scores = np.mean(answers, axis=0)
    people, person = np.unique(rows.user, return_inverse=True)
    of_person = [np.flatnonzero(person == number) for number in range(len(people))]
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        at = np.concatenate([of_person[number] for number in random.integers(0, len(people), len(people))])
        drawn.append(auc(scores[at], rows.liked[at]) - auc(base[at], rows.liked[at]))
    gain = float(np.mean([auc(answer, rows.liked) for answer in answers])) - auc(base, rows.liked)
    return {"auc": gain, "se": float(np.nanstd(drawn, ddof=1))}
