"""What an answer leaves behind, off the response path: its exposure and, sampled, its context."""

import time

from bentos.recommender.types import Query, Slate
from contracts.exposures import ContextRecord, Exposure, Versions


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


def context_record(query: Query, slate: Slate, exclude: list[str], *, with_rows: bool = False) -> ContextRecord:
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
    )
