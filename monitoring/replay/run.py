"""One request through the funnel that serves, from its record: every stage with what went in and what came out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.funnel import Funnel
from bentos.recommender.inflight import InFlight
from bentos.recommender.ranking import Given
from bentos.recommender.types import Candidates, Query, Slate, SourceResult, User
from contracts.exposures import ContextRecord
from contracts.serving import SOURCES
from features.online.base import UserState
from monitoring.replay.record import user_state

CHAIN = ("dcn", "logistic")


@dataclass(frozen=True, slots=True)
class Run:
    """query, state → user → brought → union → rows → ranked → slate, over `item_ids` of the catalogue of then.

    candidates: the union after the filters; dropped: by filter; decisions: of the re-rankers.
    """

    query: Query
    state: UserState
    user: User
    brought: Mapping[str, SourceResult]
    union: int
    dropped: Mapping[str, int]
    candidates: Candidates
    rows: NDArray[np.float32] | None
    ranked: Candidates
    decisions: tuple[str, ...]
    slate: Slate


def run(funnel: Funnel, record: ContextRecord, user_id: str) -> Run:
    """The stages as they serve. What had failed or come too late is left out again, as nobody can make it late again:
    sources that brought nothing, scorers before the one that ranked.

    Raises:
        LookupError: no candidates are left.
    """
    stages = funnel.stages
    exclude = funnel.models.index.lookup_many(record.exclude)
    query = Query(
        record.request_id,
        user_id,
        record.k,
        record.clock_us,
        math.inf,
        record.context,
        exclude[exclude >= 0] if record.exclude else np.empty(0, np.int32),
        debug=True,
        sources_off=tuple(name for name in SOURCES if name not in record.candidates),
        aim=record.aim,
    )
    state = user_state(record)
    flight = InFlight(query, state=state)
    known = stages.hydrate.known(query)
    user = stages.hydrate.resolve(query, known, state)
    # A store that was late or away left no features, and said so.
    flight.stale = user.stale or tuple(name for name in record.stale if name == "online_store")
    for needs_session, whom in ((False, known), (True, user)):
        names = [n for n in stages.retrieval.names(needs_session=needs_session) if n not in query.sources_off]
        flight.add(stages.retrieval.retrieve(names, query, whom))
    candidates = stages.union(flight, user)
    given: Given = dict.fromkeys(CHAIN[: _place(record.ranked_by)], "not asked, as then")
    rows = stages.rows(query, user, candidates) if record.ranked_by in CHAIN else None
    slate, _ = stages.conclude(flight, user, candidates, rows, given)
    if slate.ranked is None or slate.debug is None:
        raise LookupError("the funnel gave no ranked candidates")
    return Run(
        query,
        state,
        user,
        flight.brought,
        flight.union,
        flight.dropped,
        candidates,
        rows,
        slate.ranked,
        tuple(slate.debug["decisions"]),
        slate,
    )


def _place(ranked_by: str) -> int:
    return CHAIN.index(ranked_by) if ranked_by in CHAIN else len(CHAIN)
