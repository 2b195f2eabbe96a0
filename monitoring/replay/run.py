"""One request through the funnel that serves, from its record: every stage with what went in and what came out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.funnel import Funnel
from bentos.recommender.inflight import InFlight
from bentos.recommender.ranking import Given
from bentos.recommender.slates import ids_of
from bentos.recommender.types import Candidates, Query, Slate, SourceResult, User
from contracts.exposures import ContextRecord
from contracts.serving import SOURCES
from features.online.base import UserState
from monitoring.replay.record import user_state

T = TypeVar("T")


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


class Flags(Protocol):
    """Versions of the live catalogue's flags that held while the answer was made, in order; `set` makes one hold."""

    @property
    def versions(self) -> Sequence[int]: ...

    def set(self, version: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """The flags that the funnel has."""

    versions: Sequence[int] = (0,)

    def set(self, version: int) -> None:
        pass


def run(funnel: Funnel, record: ContextRecord, user_id: str, flags: Flags | None = None) -> Run:
    """The stages as they serve. What had failed or come too late is left out again, as nobody can make it late again:
    sources that brought nothing, scorers before the one that ranked.

    A flag may have taken effect between two stages. Each stage that looks at flags is given the first version, from
    that of the stage before on, with which it says what was logged.

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
    known = stages.hydrate.known(query)
    user = stages.hydrate.resolve(query, known, state)
    held = flags or Standing()
    item_ids = funnel.models.catalogue.item_ids
    brought: dict[str, SourceResult | str] = {}
    for needs_session, whom in ((False, known), (True, user)):
        names = [n for n in stages.retrieval.names(needs_session=needs_session) if n not in query.sources_off]
        found, held = _first(
            held,
            partial(stages.retrieval.retrieve, names, query, whom),
            lambda found: all(_ids(item_ids, result) == record.candidates[name] for name, result in found.items()),
        )
        brought |= found
    done, _ = _first(
        held,
        lambda: _concluded(funnel, query, state, user, brought, record),
        lambda done: done.slate.digest == record.digest and list(done.slate.item_ids) == record.item_ids,
    )
    return done


def _first(flags: Flags, make: Callable[[], T], as_logged: Callable[[T], bool]) -> tuple[T, Flags]:
    """What is made under the first version that makes it as logged, and the versions from there on; under the first of
    all where none does."""
    first: T | None = None
    for at, version in enumerate(flags.versions):
        flags.set(version)
        made = make()
        if len(flags.versions) == 1 or as_logged(made):
            return made, _From(flags, flags.versions[at:])
        first = made if first is None else first
    assert first is not None  # noqa: S101 - there is one version at least
    return first, flags


@dataclass(frozen=True, slots=True)
class _From:
    flags: Flags
    versions: Sequence[int]

    def set(self, version: int) -> None:
        self.flags.set(version)


def _concluded(
    funnel: Funnel,
    query: Query,
    state: UserState,
    user: User,
    brought: Mapping[str, SourceResult | str],
    record: ContextRecord,
) -> Run:
    stages = funnel.stages
    flight = InFlight(query, state=state)
    # A store that was late or away left no features, and said so.
    flight.stale = user.stale or tuple(name for name in record.stale if name == "online_store")
    flight.add(brought)
    candidates = stages.union(flight, user)
    chain: list[str] = [scorer.name for scorer in stages.scorers if scorer.name != "retrieval"]
    asked = record.ranked_by in chain
    before = chain[: chain.index(record.ranked_by)] if asked else chain
    given: Given = dict.fromkeys(before, "not asked, as then")
    rows = stages.rows(query, user, candidates) if asked else None
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


def _ids(item_ids: Sequence[str], result: SourceResult | str) -> list[str]:
    return [] if isinstance(result, str) else list(ids_of(item_ids, result.items))
