"""Runs the very funnel that serves over a test set, and makes of it what a ranker learns from.

U test users, N items, L places.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from bentos.recommender.funnel import Funnel
from bentos.recommender.types import Query
from features.online.base import UserState
from training.evaluation.metrics import pad
from training.evaluation.protocol import Lists, TestSet
from training.evaluation.report import CANDIDATES
from training.gathered import Gathered
from training.interactions import Log
from training.models.dcn_v2 import RankingRows
from training.progress import Progress, silent

SLATE = 20


def met_items(log: Log, n_items: int) -> csr_matrix:
    """float32 [U, N], 1 where a user met an item with a positive event."""
    positives = log.positives()
    ones = np.ones(len(positives), np.float32)
    matrix = csr_matrix((ones, (positives.user, positives.item)), shape=(log.n_users, n_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


@dataclass(frozen=True, slots=True)
class FunnelAnswers:
    """What the funnel said to the users of a test set, with the rules as served and without any.

    rows: the ranker's candidate rows with labels, users of `sampled` only.
    """

    with_rules: Lists
    without_rules: Lists
    merged: NDArray[np.int64]  # candidates by merged retrieval score, [U, 500]
    ranked: NDArray[np.int64]  # candidates by the ranker, [U, 500]
    probabilities: NDArray[np.float32]  # over the rows of all users' candidates
    labels: NDArray[np.int8]
    row_users: NDArray[np.int64]
    seconds_per_user: float


def run_funnel(
    funnel: Funnel,
    plain: Funnel,
    states: Mapping[str, UserState],
    test: TestSet,
    user_ids: Sequence[str],
    met: csr_matrix,
    now_us: int,
    *,
    each_source: bool = True,
    gathered: Gathered | None = None,
    progress: Progress = silent,
) -> FunnelAnswers:
    """Ask the funnel for every user of the test set.

    funnel: with the rules that serve; plain: the same models without rules on composition. states: by user id, as of
    `now_us`. met: the training items of each user, which are masked whatever the bundle's own list says. gathered:
    takes what is shown.
    """
    if gathered is not None:
        gathered.expect(len(test), SLATE)
    index = funnel.models.index
    with_rules, without, merged, ranked, union = [], [], [], [], []
    by_source: dict[str, list[NDArray[np.int64]]] = {}
    probabilities, labels, row_users = [], [], []
    started = time.perf_counter()
    for position, user in enumerate(test.users):
        user_id = user_ids[user]
        state = states.get(user_id) or UserState(user_id)
        query = ask(user_id, now_us, met.indices[met.indptr[user] : met.indptr[user + 1]])
        slate = funnel.run(query, state)
        with_rules.append(index.lookup_many(slate.item_ids).astype(np.int64))
        wanted = test.targets.items[test.targets.indptr[position] : test.targets.indptr[position + 1]]
        if gathered is not None:
            gathered.slate(position, slate, wanted)
        without.append(index.lookup_many(plain.run(query, state).item_ids).astype(np.int64))
        profile, candidates = funnel.candidates(query, state)
        items = candidates.items.astype(np.int64)
        merged.append(items[np.argsort(-candidates.retrieval, kind="stable")])
        union.append(items)
        scorer = funnel.models.ranker or funnel.models.light
        if scorer is not None and len(items):
            probability = np.asarray(scorer.score(funnel.rows(query, profile, candidates)))
            ranked.append(items[np.lexsort((items, -candidates.retrieval, -probability))])
            probabilities.append(probability)
            labels.append(np.isin(items, wanted).astype(np.int8))
            row_users.append(np.full(len(items), position))
        else:
            ranked.append(merged[-1])
        if each_source:
            for name, result in funnel.source_candidates(query, state, CANDIDATES).items():
                by_source.setdefault(name, []).append(result.items.astype(np.int64))
        progress("funnel on the test window", position + 1, len(test))
    seconds = (time.perf_counter() - started) / max(len(test), 1)
    candidates_of = pad(union, CANDIDATES)
    return FunnelAnswers(
        Lists(pad(with_rules, SLATE), candidates_of, {n: pad(v, CANDIDATES) for n, v in by_source.items()}),
        Lists(pad(without, SLATE), candidates_of),
        pad(merged, CANDIDATES),
        pad(ranked, CANDIDATES),
        np.concatenate(probabilities) if probabilities else np.empty(0, np.float32),
        np.concatenate(labels) if labels else np.empty(0, np.int8),
        np.concatenate(row_users) if row_users else np.empty(0, np.int64),
        seconds,
    )


def ask(user_id: str, now_us: int, exclude: NDArray[np.int32], context: Mapping[str, str] | None = None) -> Query:
    """A request without a deadline, as evaluation and training make it."""
    return Query(
        request_id=f"offline-{user_id}",
        user_id=user_id,
        k=SLATE,
        now_us=now_us,
        deadline=math.inf,
        context=context or {},
        exclude=exclude.astype(np.int32),
    )


def ranking_rows(
    funnel: Funnel,
    states: Mapping[str, UserState],
    test: TestSet,
    user_ids: Sequence[str],
    met: csr_matrix,
    now_us: int,
    *,
    contexts: Mapping[str, Mapping[str, str]] | None = None,
    worth: csr_matrix | None = None,
    gathered: Gathered | None = None,
    progress: Progress = silent,
) -> RankingRows:
    """The rows of each user's candidates, labelled by the targets: what the ranker learns from. worth: float32 [U, N],
    what each wish is worth; None: 1. gathered: takes some of the rows."""
    rows, labels, counts, asked, gains = [], [], [], [], []
    if gathered is not None:
        gathered.expect(len(test), max(1, gathered.at_most // max(len(test), 1)))
    for position, user in enumerate(test.users):
        user_id = user_ids[user]
        state = states.get(user_id) or UserState(user_id)
        query = ask(
            user_id, now_us, met.indices[met.indptr[user] : met.indptr[user + 1]], (contexts or {}).get(user_id)
        )
        profile, candidates = funnel.candidates(query, state)
        if len(candidates):
            wanted = test.targets.items[test.targets.indptr[position] : test.targets.indptr[position + 1]]
            rows.append(funnel.rows(query, profile, candidates))
            labels.append(np.isin(candidates.items, wanted).astype(np.int8))
            counts.append(len(candidates))
            if worth is not None:
                gain = worth[user][:, candidates.items].toarray()[0]
                gains.append(np.where(labels[-1] > 0, gain, np.float32(1)))
            asked.append(user_id)
            if gathered is not None:
                gathered.candidates(position, profile, candidates, rows[-1], labels[-1])
        progress("candidates to learn from", position + 1, len(test))
    return RankingRows(
        np.concatenate(rows) if rows else np.empty((0, 0), np.float32),
        np.concatenate(labels) if labels else np.empty(0, np.int8),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        tuple(asked),
        np.concatenate(gains) if gains else np.empty(0, np.float32),
    )
