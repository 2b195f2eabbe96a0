"""What an answer leaves behind, off the response path: its exposure and, sampled, its context."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.types import Query, Slate
from contracts.exposures import ContextRecord, Exposure, States, Versions
from features.resolve import LAST_10, interaction_words

IdsAt = Callable[[NDArray[np.int32]], Sequence[str]]


def exposure(query: Query, slate: Slate, versions: Versions) -> Exposure:
    """Of a Bento that is called without a gateway: it is the champion, with probability 1."""
    return Exposure(
        request_id=query.request_id,
        timestamp_us=time.time_ns() // 1000,
        clock_us=query.now_us,
        unit=query.user_id,
        user_id=query.user_id,
        assigned="champion",
        served="champion",
        probability=1.0,
        exploration=False,
        slate_propensity=None,
        outcome="ok" if slate.item_ids else "empty",
        degradation=slate.degradation,
        item_ids=list(slate.item_ids),
        versions=versions,
        batch_age_s=slate.batch_age_s,
    )


def context_record(
    query: Query,
    slate: Slate,
    exclude: list[str],
    *,
    versions: Versions | None = None,
    states: States | None = None,
    with_rows: bool = False,
    with_candidates: IdsAt | None = None,
) -> ContextRecord:
    """with_rows: what the ranker read of the first items shown. with_candidates: ids of item rows, where the record is
    to have all candidates with their scores."""
    state, stale = slate.state, list(slate.stale)
    ranked = None if with_candidates is None else slate.ranked
    brought = {} if with_candidates is None else slate.brought
    return ContextRecord(
        request_id=query.request_id,
        timestamp_us=time.time_ns() // 1000,
        clock_us=query.now_us,
        user_id=query.user_id,
        k=query.k,
        context=dict(query.context),
        exclude=exclude,
        features=list(slate.used),
        candidates={source: list(ids) for source, ids in slate.candidates.items()},
        top_item_ids=[item for item, _ in slate.top],
        top_scores=[score for _, score in slate.top],
        digest=slate.digest,
        ranked_by=slate.ranked_by,
        stages_ms=dict(slate.stages_ms),
        notes=list(slate.notes),
        shown=slate.shown() if with_rows and slate.shown is not None else None,
        aim=slate.aim,
        degradation=slate.degradation,
        stale=stale,
        last=interaction_words(state.last) if state is not None and LAST_10 in stale else [],
        lists="" if state is None or state.precomputed is None else state.precomputed.snapshot,
        item_ids=list(slate.item_ids),
        scores=list(slate.scores),
        versions=versions,
        states=states,
        candidate_scores={name: result.scores.tolist() for name, result in brought.items()},
        ranked_item_ids=[] if with_candidates is None or ranked is None else list(with_candidates(ranked.items)),
        ranked_scores=[] if ranked is None else ranked.score.tolist(),
    )
