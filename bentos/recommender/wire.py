"""The runners in processes of their own: what travels, and the callers' side.

Only dicts, lists, numbers, strings and arrays travel. What a source does not read (features, the store's state) stays
at home. Reasons come back as data, and the callers' side turns every failure of the way there into one.
"""

import asyncio
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from bentoml.exceptions import BentoMLException
from numpy.typing import NDArray

from bentos.recommender.breaker import DEPENDENCY, Breaker, BreakerPolicy
from bentos.recommender.types import Query, SourceResult, User
from contracts.budgets import Plan
from features.online.base import UserState

STATUS_S = 1.0
LEAST_S = 0.001  # with less time another try is not worth it
PATIENCE_S = 20.0  # for a request without a deadline: the first one, through sessions that have not run yet
log = logging.getLogger("streamrec.serving")


def pack(sources: tuple[str, ...], query: Query, user: User, limits: Plan) -> dict[str, Any]:
    """Moments travel as they are: CLOCK_MONOTONIC is one clock for all processes of a machine."""
    return {
        "sources": list(sources),
        "request_id": query.request_id,
        "user_id": query.user_id,
        "k": query.k,
        "now_us": query.now_us,
        "deadline": query.deadline,
        "limits": dataclasses.astuple(limits),
        "context": dict(query.context),
        "exclude": query.exclude,
        "row": user.row,
        "history": user.history,
        "history_age_h": user.history_age_h,
        "seen": user.seen,
        "met": user.met,
        "met_at_us": user.met_at_us,
    }


def unpack(payload: Mapping[str, Any]) -> tuple[tuple[str, ...], Query, User, Plan]:
    query = Query(
        request_id=payload["request_id"],
        user_id=payload["user_id"],
        k=payload["k"],
        now_us=payload["now_us"],
        deadline=payload["deadline"],
        context=payload["context"],
        exclude=payload["exclude"],
    )
    user = User(
        row=payload["row"],
        state=UserState(payload["user_id"]),
        history=payload["history"],
        history_age_h=payload["history_age_h"],
        seen=payload["seen"],
        met=payload["met"],
        met_at_us=payload["met_at_us"],
    )
    return tuple(payload["sources"]), query, user, Plan(*payload["limits"])


def pack_results(results: Mapping[str, SourceResult | str]) -> dict[str, Any]:
    return {
        name: result
        if isinstance(result, str)
        else {"items": result.items, "scores": result.scores, "vector": result.vector}
        for name, result in results.items()
    }


def unpack_results(payload: Mapping[str, Any]) -> dict[str, SourceResult | str]:
    return {
        name: result if isinstance(result, str) else SourceResult(result["items"], result["scores"], result["vector"])
        for name, result in payload.items()
    }


def pack_rows(rows: NDArray[np.float32], until: float) -> list[dict[str, Any]]:
    """One request of a batch, rows float32 [R, F]. After `until` nobody waits for its scores."""
    return [{"rows": rows, "until": until}]


def score_together(
    score: Callable[[NDArray[np.float32]], NDArray[np.float32]], batch: Sequence[Mapping[str, Any]]
) -> list[NDArray[np.float32]]:
    """For each request of the batch float32 [R], the rows of all scored at once.

    Not those that nobody waits for: a backlog would else be worked off for callers who have gone, and keep those who
    come waiting until they have gone too. They get NaN.
    """
    now = time.perf_counter()
    wanted = [one["rows"] for one in batch if one["until"] > now]
    sizes = [len(rows) for rows in wanted]
    scores = score(np.concatenate(wanted)) if wanted else np.empty(0, np.float32)
    parts = iter(np.split(scores, np.cumsum(sizes[:-1])))
    return [next(parts) if one["until"] > now else np.full(len(one["rows"]), np.nan, np.float32) for one in batch]


class _Runner:
    """One dependency, called through BentoML's async client.

    A connection that is lost is tried again once, in the time that is left: the process has been killed, perhaps with
    others beside it. From then on calls are answered with the reason at once, until `ask_status` reaches it again: its
    socket outlives the process, so that a request would wait there for nothing. Failures of a process that does answer
    are the breaker's to count; a process that was started again begins with a new one.

    Args:
        budget_s: what a call gets of a request that has all of its time. To be late with less says nothing of the
            process: anybody may want an answer within a millisecond, and must not shut it to everybody else.
    """

    def __init__(self, name: str, client: Any, policy: BreakerPolicy = DEPENDENCY, *, budget_s: float = 0.0) -> None:
        self.name = name
        self.status: dict[str, Any] = {}  # what it last said of itself
        self.problem = "has not answered yet"  # "" while it answers
        self.counts: Counter[str] = Counter()
        self.breaker = Breaker(policy)
        self._policy = policy
        self._client = client
        self._budget_s = budget_s

    async def ask_status(self) -> None:
        answer = await self._attempt(STATUS_S, "status")
        if isinstance(answer, Failure):
            self.problem = answer.reason
            return
        if answer.get("pid") != self.status.get("pid"):
            self.breaker = Breaker(self._policy)
        self.status, self.problem = answer, ""

    async def _call(
        self, method: str, argument: Any, until: float, wrong: Callable[[Any], str] = lambda answer: ""
    ) -> Any | str:
        """The answer, or the reason why there is none. wrong: what is wrong with an answer, "" nothing."""
        if self.problem:
            return self.problem
        breaker, began = self.breaker, time.perf_counter()
        permit = breaker.allow(began)
        if permit is None:
            self.counts["refused"] += 1
            return f"the {self.name} process is left alone after failures in a row"
        answer: Any = None
        try:
            answer = await self._attempt(until - began, method, argument)
            if isinstance(answer, Failure) and answer.lost:
                self.problem = answer.reason
                began = time.perf_counter()
                if until - began > LEAST_S:
                    self.counts["tried_again"] += 1
                    answer = await self._attempt(until - began, method, argument)
        except BaseException:  # the caller has left
            breaker.none(permit)
            raise
        ended = time.perf_counter()
        reason = answer.reason if isinstance(answer, Failure) else wrong(answer)
        if not reason:
            breaker.good(permit, ended)
            return answer
        late = answer.late if isinstance(answer, Failure) else ended >= until
        if late and until - began < self._budget_s:
            self.counts["hurried"] += 1
            breaker.none(permit)
        else:
            self.counts["failed"] += 1
            breaker.bad(permit, ended)
        return reason

    async def _attempt(self, timeout_s: float, method: str, *arguments: Any) -> "Any | Failure":
        try:
            async with asyncio.timeout(max(min(timeout_s, PATIENCE_S), 0.001)):
                # `client.status` and the like are there only after the start-up, `call` always.
                return await self._client.call(method, *arguments)
        except TimeoutError:
            return Failure(f"the {self.name} process did not answer in time", late=True)
        except BentoMLException as error:  # it is there, and says so
            log.debug("%s.%s failed", self.name, method, exc_info=True)
            return Failure(f"the {self.name} process failed: {type(error).__name__}")
        except Exception as error:  # aiohttp's, the socket's: each means that it is not there
            log.debug("%s.%s failed", self.name, method, exc_info=True)
            return Failure(f"the {self.name} process is away: {type(error).__name__}", lost=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why a call gave nothing. lost: nobody is there to answer. late: not in the time that it was given."""

    reason: str
    lost: bool = False
    late: bool = False


class RemoteRetrieval(_Runner):
    async def retrieve(
        self, sources: tuple[str, ...], query: Query, user: User, limits: Plan
    ) -> Mapping[str, SourceResult | str]:
        answer = await self._call("retrieve", pack(sources, query, user, limits), limits.retrieval_until)
        return dict.fromkeys(sources, answer) if isinstance(answer, str) else unpack_results(answer)


class RemoteScorer(_Runner):
    """`Ranking` and `Fallback`: rows float32 [R, F] → float32 [R]. NaN is how a runner says that it cannot score."""

    async def score(self, rows: NDArray[np.float32], until: float) -> NDArray[np.float32] | str:
        asked = pack_rows(rows, until)
        answer = await self._call("score", asked, until, lambda scores: self._wrong(scores[0], len(rows)))
        return answer if isinstance(answer, str) else np.asarray(answer[0], dtype=np.float32)

    def _wrong(self, answer: Any, rows: int) -> str:
        scores = np.asarray(answer)
        if scores.shape != (rows,):
            return f"the {self.name} process gave {scores.shape} scores for {rows} rows"
        return "" if np.isfinite(scores).all() else f"the {self.name} process has no model, or it fails"

    async def light(self, rows: NDArray[np.float32], until: float) -> NDArray[np.float32] | str:
        return await self.score(rows, until)
