"""What is known at the cut must not hang on what comes after it: give the log another future, and look.

From the cut on the rows are replaced by wishes that are drawn among each person's own candidates: labels that nobody
can foretell, put in place before anything is made of the log. Then all that a training makes of it is made anew:
features of items, states of users, candidates, labelled rows. Each has to be what it was, and a ranker that learns from
the rows has to find nothing in them (shuffled.py).

The retrieval models stay those of the log as it was: what their fit read is not asked here. U users, K candidates.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from contracts.checklist import TRAIN
from contracts.dataset import CONFIG, INTERACTIONS, ITEMS, USERS, DatasetConfig
from contracts.evidence import Check, Verdict
from features.offline.items import item_features_as_of
from features.offline.states import user_states_as_of
from features.online.base import ItemSnapshot, UserState
from features.ranking import row_schema
from registry.artifacts import Bundle
from training.data import read
from training.evaluate import ask, met_items, ranking_rows
from training.holdout import read_window, test_set
from training.interactions import DAY_US, Items, read_log
from training.models.dcn_v2 import RankingRows

MOST_USERS = 200
WISHED = 0.1  # of a user's candidates: each of them by itself, so that no column of the user tells of it either
NO_ITEMS = np.empty(0, np.int32)
TOO_GOOD_AUC = 0.995

Columns = Mapping[str, NDArray[np.float32]]
# User → candidates int32 [K], and what the ranker reads of them, float32 [K, F].
Asked = Mapping[str, tuple[NDArray[np.int32], NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Future:
    """problems: what at the cut is another thing under another future. rows: of the drawn one, labelled by it. users:
    whose state was compared; compared: rows of the ranker that were, each with the one it had been."""

    problems: tuple[str, ...]
    rows: RankingRows
    users: int
    compared: int


@dataclass(frozen=True, slots=True)
class _Known:
    """What a log says of its items and users as of the cut."""

    columns: Columns
    states: Mapping[str, UserState]

    @classmethod
    def of(cls, folder: Path, item_ids: Sequence[str], user_ids: Sequence[str], cut_us: int) -> "_Known":
        columns = item_features_as_of(folder, cut_us, item_ids)
        return cls(columns, user_states_as_of(folder, user_ids, cut_us))


def another_future(
    folder: Path, config: DatasetConfig, cut_us: int, to_us: int, retrieval: Bundle, *, seed: int
) -> Future:
    """retrieval: fitted on the rows before `cut_us`. No row need be after it: the drawn ones are then of a day."""
    models = load_models({"retrieval": retrieval.folder, "ranking": None, "fallback": None}, threads=1)
    funnel = Funnel(models, None)
    random = np.random.default_rng(seed)
    users, items = _latest_users(folder, cut_us, random), list(models.catalogue.item_ids)
    before = _Known.of(folder, items, users, cut_us)
    asked = _ask_each(funnel, before, cut_us)
    to_us = max(to_us, cut_us + DAY_US)
    with tempfile.TemporaryDirectory(prefix="streamrec-leak-") as temporary:
        other = Path(temporary)
        wishes = [
            (user, items[row])
            for user, (candidates, _) in asked.items()
            for row in candidates[random.random(len(candidates)) < WISHED].tolist()
        ]
        moments = np.sort(random.integers(cut_us, to_us, len(wishes)))
        _write(folder, other, cut_us, _events(read.schema(folder / INTERACTIONS), config, wishes, moments))
        after = _Known.of(other, items, users, cut_us)
        rows = _labelled(other, config, cut_us, to_us, funnel, after)
    of_the_rows, compared = _of_the_rows(asked, rows)
    return Future((*_of_the_log(before, after), *of_the_rows), rows, len(before.states), compared)


def future_changes_nothing(found: Future, ranker_auc: float) -> Check:
    """Features and rows as of the cut are the same under another future; no figure is too good. `inconclusive` where
    there was nothing to compare. ranker_auc: in the test window; NaN without one."""
    problems = list(found.problems)
    figures = {"compared_users": float(found.users), "compared_rows": float(found.compared)}
    if np.isfinite(ranker_auc):
        figures["ranker_auc"] = ranker_auc
        if ranker_auc > TOO_GOOD_AUC:
            problems.append(f"the ranker's AUC of {ranker_auc:.4f} is too good to be true")
    counted = f"{found.users} users and {found.compared} rows of the ranker"
    verdict: Verdict = "pass"
    told = f"features, candidates and rows at the cut are the same under another future ({counted})"
    if problems:
        verdict, told = "fail", "; ".join(problems)
    elif not found.users or not found.compared:
        verdict, told = "inconclusive", f"{counted} could be compared under another future"
    return Check(
        name="leakage",
        verdict=verdict,
        detail=told,
        figures=figures,
        command=TRAIN,
    )


def _latest_users(folder: Path, cut_us: int, random: np.random.Generator) -> list[str]:
    """Some of those whose events are nearest to the cut: of their state most is at stake."""
    stamps = np.sort(read.interactions(folder, ["timestamp"], until_us=cut_us)["timestamp"].cast(pa.int64()).to_numpy())
    since_us = int(stamps[max(0, len(stamps) - 20 * MOST_USERS)]) if len(stamps) else 0
    latest = pc.unique(read.interactions(folder, ["user_id"], since_us, cut_us)["user_id"].cast(pa.string()))
    users = sorted(latest.to_pylist())
    return [users[at] for at in np.sort(random.permutation(len(users))[:MOST_USERS]).tolist()]


def _use(funnel: Funnel, known: _Known, cut_us: int) -> None:
    item_ids = funnel.models.catalogue.item_ids
    funnel.set_items(
        ItemSnapshot(f"as-of-{cut_us}", item_ids, dict(known.columns), dict.fromkeys(known.columns, cut_us))
    )


def _ask_each(funnel: Funnel, known: _Known, cut_us: int) -> Asked:
    _use(funnel, known, cut_us)
    asked = {}
    for user, state in known.states.items():
        query = ask(user, cut_us, NO_ITEMS)
        profile, candidates = funnel.candidates(query, state)
        if len(candidates):
            asked[user] = candidates.items, funnel.rows(query, profile, candidates)
    return asked


def _events(
    schema: pa.Schema, config: DatasetConfig, wishes: Sequence[tuple[str, str]], moments: NDArray[np.int64]
) -> pa.Table:
    """wishes: (user, item), each the strongest positive event there is; moments: when."""
    strongest = max(config.positives, key=lambda positive: positive.weight)
    known = {
        "user_id": pa.array([user for user, _ in wishes], pa.string()),
        "item_id": pa.array([item for _, item in wishes], pa.string()),
        "timestamp": pa.array(moments, pa.timestamp("us", tz="UTC")),
        "event": pa.array([strongest.event] * len(wishes), pa.string()),
        "value": pa.array([strongest.min_value] * len(wishes), pa.float64()),
    }
    columns = [
        known[field.name].cast(field.type) if field.name in known else pa.nulls(len(wishes), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _write(folder: Path, other: Path, cut_us: int, events: pa.Table) -> None:
    """The data set up to the cut, with the items that were published or met by then, and `events` after it."""
    met: set[str] = set()
    with pq.ParquetWriter(other / INTERACTIONS, events.schema) as writer:
        for batch in read.batches(folder, cut_us):
            writer.write_batch(batch)
            met.update(pc.unique(batch["item_id"].cast(pa.string())).to_pylist())
        writer.write_table(events)
    items = read.items(folder)
    published = items["published_at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).fill_null(0)
    there = pc.is_in(items["item_id"].cast(pa.string()), value_set=pa.array(sorted(met), pa.string()))
    pq.write_table(items.filter(pc.or_(there, pc.less_equal(published, cut_us))), other / ITEMS)
    for name in (USERS, CONFIG):
        if (folder / name).exists():
            (other / name).symlink_to((folder / name).resolve())


def _of_the_log(before: _Known, after: _Known) -> list[str]:
    """Each thing that is not what it was, by name."""
    found = [
        f"{name} at the cut changes with rows after it"
        for name, values in before.columns.items()
        if not np.array_equal(values, after.columns[name], equal_nan=True)
    ]
    if any(
        state.batch != after.states[user].batch or state.last != after.states[user].last
        for user, state in before.states.items()
    ):
        found.append("user features at the cut change with rows after it")
    return found


def _of_the_rows(asked: Asked, made: RankingRows) -> tuple[list[str], int]:
    """(What is not what it was; rows that could be compared.)"""
    others, compared, columns = 0, 0, np.zeros(len(row_schema().names), bool)
    for user, start, end in zip(made.user_ids, made.indptr[:-1], made.indptr[1:], strict=True):
        _, rows = asked[user]
        again = made.rows[start:end]
        if rows.shape == again.shape:
            columns |= ~np.isclose(rows, again, rtol=1e-5, atol=1e-6).all(axis=0)
            compared += len(rows)
        else:
            others += 1
    found = [f"candidates of {others} users at the cut change with rows after it"] if others else []
    names = [name for name, other in zip(row_schema().names, columns, strict=True) if other]
    if names:
        found.append(f"columns of the ranker at the cut change with rows after it: {', '.join(names)}")
    return found, compared


def _labelled(
    other: Path, config: DatasetConfig, cut_us: int, to_us: int, funnel: Funnel, known: _Known
) -> RankingRows:
    """Rows as the rankers get them at a moment before the cut (training/ranking.py), of those who were given wishes."""
    _use(funnel, known, cut_us)
    catalogue = funnel.models.catalogue
    log = read_log(other, config, Items(catalogue, [""] * len(catalogue), np.ones(len(catalogue), bool)), cut_us)
    window = read_window(other, config, catalogue, log, cut_us, to_us)
    test = test_set(log, window, len(catalogue))
    met: csr_matrix = met_items(log, len(catalogue))
    return ranking_rows(funnel, known.states, test, log.user_ids, met, cut_us)
