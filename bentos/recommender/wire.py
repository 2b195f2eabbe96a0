"""The runners in processes of their own: what travels, and the callers' side.

Only dicts, lists, numbers, strings and arrays travel. What a source does not read (features, the store's state) stays
at home. Reasons come back as data, and the callers' side turns every failure of the way there into one.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.types import Query, SourceResult, User
from features.online.base import UserState

STATUS_S = 1.0
log = logging.getLogger("streamrec.serving")


def pack(sources: tuple[str, ...], query: Query, user: User) -> dict[str, Any]:
    """`deadline` travels as it is: CLOCK_MONOTONIC is one clock for all processes of a machine."""
    return {
        "sources": list(sources),
        "request_id": query.request_id,
        "user_id": query.user_id,
        "k": query.k,
        "now_us": query.now_us,
        "deadline": query.deadline,
        "context": dict(query.context),
        "exclude": query.exclude,
        "row": user.row,
        "history": user.history,
        "history_age_h": user.history_age_h,
        "seen": user.seen,
    }


def unpack(payload: Mapping[str, Any]) -> tuple[tuple[str, ...], Query, User]:
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
    )
    return tuple(payload["sources"]), query, user


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


class _Runner:
    """One dependency, called through BentoML's async client.

    A call that fails marks the runner as away, and until `ask_status` reaches it again calls are answered with the
    reason at once: its socket outlives the process, so that a request would wait there for nothing.
    """

    def __init__(self, name: str, client: Any, budget_s: float) -> None:
        self.name = name
        self.status: dict[str, Any] = {}  # what it last said of itself
        self.problem = "has not answered yet"  # "" while it answers
        self._client = client
        self.budget_s = budget_s

    async def ask_status(self) -> None:
        answer = await self._attempt(STATUS_S, "status")
        if isinstance(answer, str):
            self.problem = answer
        else:
            self.status, self.problem = answer, ""

    async def _call(self, method: str, argument: Any, timeout_s: float) -> Any | str:
        """The answer, or the reason why there is none."""
        if self.problem:
            return self.problem
        answer = await self._attempt(timeout_s, method, argument)
        if isinstance(answer, str):
            self.problem = answer
        return answer

    async def _attempt(self, timeout_s: float, method: str, *arguments: Any) -> Any | str:
        try:
            async with asyncio.timeout(timeout_s):
                # `client.status` and the like are there only after the start-up, `call` always.
                return await self._client.call(method, *arguments)
        except TimeoutError:
            return f"the {self.name} process did not answer in time"
        except Exception as error:  # aiohttp's, BentoML's, the socket's: each means that it is not there
            log.debug("%s.%s failed", self.name, method, exc_info=True)
            return f"the {self.name} process is away: {type(error).__name__}"


class RemoteRetrieval(_Runner):
    async def retrieve(self, sources: tuple[str, ...], query: Query, user: User) -> Mapping[str, SourceResult | str]:
        left_s = query.deadline - time.perf_counter()
        answer = await self._call("retrieve", pack(sources, query, user), max(min(left_s, 10.0), 0.001))
        return dict.fromkeys(sources, answer) if isinstance(answer, str) else unpack_results(answer)


class RemoteScorer(_Runner):
    """`Ranking` and `Fallback`: rows float32 [R, F] → float32 [R]. NaN is how a runner says that it cannot score."""

    async def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32] | str:
        answer = await self._call("score", rows, self.budget_s)
        if isinstance(answer, str):
            return answer
        scores = np.asarray(answer, dtype=np.float32)
        if scores.shape != (len(rows),):
            return f"the {self.name} process gave {scores.shape} scores for {len(rows)} rows"
        return f"the {self.name} process has no model" if np.isnan(scores).any() else scores

    async def light(self, rows: NDArray[np.float32]) -> NDArray[np.float32] | str:
        return await self.score(rows)
