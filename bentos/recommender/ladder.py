"""The degradation ladder: full → stale_features → simple_ranking → batch → cached → popularity.

The upper three are one computed slate, named by what it had to do without (`slates.rung`). The lower three are lists
that exist already: they need neither the compute thread nor a model, so they answer when everything else is stuck.
Policy holds on every rung.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from bentos.recommender.filtering import keep_allowed
from bentos.recommender.inflight import InFlight
from bentos.recommender.lists import Lists, followed_by
from bentos.recommender.merge import merge
from bentos.recommender.popular import Popular
from bentos.recommender.stages import Stages
from bentos.recommender.types import Candidates, Slate, User
from contracts.errors import Overloaded
from contracts.serving import RankedBy
from features.online.base import UserState


class Ladder:
    """The lower rungs. On the event loop."""

    def __init__(self, stages: Stages, lists: Lists) -> None:
        self._stages = stages
        self._lists = lists
        self._popular = Popular(stages, lists)

    def lowest(self, failed: InFlight, why: str) -> Slate:
        """batch → cached → popularity: the first that has anything to show.

        A computation that was given up on may still be writing to `failed`: only what it had is taken over.

        Raises:
            Overloaded: not even popularity is there.
        """
        query, state = failed.query, failed.state
        notes = [*failed.notes, f"no computed slate: {why}"]
        flight = InFlight(query, failed.trace, state, failed.stale, notes=notes)
        user = self._stages.hydrate.known(query)
        if state is not None:
            try:
                user = self._stages.hydrate.met(user, state)
            except Exception as error:
                notes.append(f"hydrate: {error!r}")
        rungs: tuple[tuple[RankedBy, Callable[[], Candidates | None]], ...] = (
            ("batch", lambda: self._batch(state)),
            ("cached", lambda: self._lists.cached(query.user_id)),
            ("popularity", lambda: self._popular.candidates(query, user)),
        )
        for name, listed in rungs:
            began = time.perf_counter()
            try:
                slate = self._popular.slate(flight, user) if name == "popularity" else None
                slate = slate or self._from_list(flight, user, name, listed())
                flight.trace.add(f"ladder.{name}", began, time.perf_counter())
            except Exception as error:
                notes.append(f"{name}: {error!r}")
                continue
            if slate is not None:
                return slate
        if not self._lists:
            raise Overloaded(f"nothing can be served: {why}, and there is no popularity list")
        notes.append("every item is excluded, seen or not allowed")
        return self._stages.slate(flight, user, merge({}, {}, 0, 1.0), "popularity")

    def popularity(self, flight: InFlight) -> Slate:
        """That rung alone.

        Raises:
            Overloaded: there is no popularity list, or nothing of it may be shown.
        """
        user = self._stages.hydrate.known(flight.query)
        with flight.trace.stage("ladder.popularity"):
            slate = self._popular.slate(flight, user)
            if slate is None:
                listed = self._popular.candidates(flight.query, user)
                slate = self._from_list(flight, user, "popularity", listed)
        if slate is None:
            raise Overloaded("there is no popularity list")
        return slate

    def _batch(self, state: UserState | None) -> Candidates | None:
        listed = None if state is None else state.precomputed
        return None if listed is None else self._lists.batch(listed)

    def _from_list(self, flight: InFlight, user: User, ranked_by: RankedBy, listed: Candidates | None) -> Slate | None:
        """None: there is no such list, or nothing of it may be shown. A short one is filled from popularity."""
        query = flight.query
        if listed is None:
            return None
        allowed, flight.dropped, notes = keep_allowed(self._stages.filters, query, user, listed)
        flight.notes += notes
        if not len(allowed):
            return None
        if len(allowed) < query.k and ranked_by != "popularity":
            more = keep_allowed(self._stages.filters, query, user, self._popular.candidates(query, user))[0]
            allowed = followed_by(allowed, more)
        # Lists of the batch and cached rungs had their promotion when they were made.
        rerankers = [r for r in self._stages.rerankers if r.name != "promote" or ranked_by == "popularity"]
        whole = ranked_by == "cached" and len(allowed) == len(listed) == query.k
        if whole and self._lists.keeps(query.user_id, self._stages.rules_digest):
            rerankers = []  # they have put it into this order
        shown, decisions = self._stages.rerank(flight, allowed, rerankers)
        slate = self._stages.slate(flight, user, shown, ranked_by, decisions)
        age_s = None
        if ranked_by == "batch" and flight.state is not None and flight.state.precomputed is not None:
            age_s = (query.now_us - flight.state.precomputed.feature_time_us) / 1e6
        sources = tuple(names or ("popularity",) for names in slate.sources)
        return replace(slate, sources=sources, batch_age_s=age_s)
