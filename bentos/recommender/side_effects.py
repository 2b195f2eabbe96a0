"""What an answer leaves behind, off the response path: its exposure and, sampled, its context."""

import time
from collections.abc import Sequence

from bentos.recommender.slates import packed_candidates
from bentos.recommender.types import Query, Slate
from contracts.exposures import ContextRecord, Exposure, States, Versions
from contracts.ids import ids_at
from features.resolve import LAST_10, interaction_words


def exposure(query: Query, slate: Slate, versions: Versions, states: States | None = None) -> Exposure:
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
        states=states,
    )


def context_record(
    query: Query,
    slate: Slate,
    exclude: list[str],
    *,
    versions: Versions | None = None,
    states: States | None = None,
    with_rows: bool = False,
    item_ids: Sequence[str] | None = None,
    with_candidates: bool = False,
) -> ContextRecord:
    """with_rows: what the ranker read of the first items shown. item_ids: of the catalogue; without them candidates are
    left out. with_candidates: all of them with their scores, not their ids alone."""
    state, stale = slate.state, list(slate.stale)
    ranked = slate.ranked if with_candidates else None
    brought = slate.brought if with_candidates else {}
    return ContextRecord(
        request_id=query.request_id,
        timestamp_us=time.time_ns() // 1000,
        clock_us=query.now_us,
        user_id=query.user_id,
        k=query.k,
        context=dict(query.context),
        exclude=exclude,
        features=list(slate.used),
        candidates={},
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
        ranked_item_ids=[] if item_ids is None or ranked is None else ids_at(item_ids, ranked.items),
        ranked_scores=[] if ranked is None else ranked.score.tolist(),
        packed=None if item_ids is None else packed_candidates(item_ids, slate.brought),
    )
