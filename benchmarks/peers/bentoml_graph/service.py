"""The runner graph as BentoML's documentation composes services: `bentoml.depends`, one process a stage."""

import os
import uuid
from typing import Any

import bentoml
import funnel

WORLD, STORE = os.environ["PEER_WORLD"], os.environ["PEER_STORE"]


@bentoml.service
class Retrieval:
    def __init__(self) -> None:
        self.stage = funnel.Retrieval(WORLD, funnel.Items(WORLD, STORE))

    @bentoml.api
    def candidates(self, user: dict[str, Any], context: dict[str, str]) -> dict[str, Any]:
        return self.stage.candidates(user, context)


@bentoml.service
class Ranking:
    def __init__(self) -> None:
        self.stage = funnel.Ranking(WORLD, funnel.Items(WORLD, STORE))

    @bentoml.api
    def score(self, user: dict[str, Any], context: dict[str, str], candidates: dict[str, Any]) -> dict[str, Any]:
        return {"scores": self.stage.score(user, context, candidates)}


@bentoml.service
class Fallback:
    def __init__(self) -> None:
        items = funnel.Items(WORLD, STORE)
        self.stage, self.ranking = funnel.Fallback(WORLD, items), funnel.Ranking(WORLD, items)

    @bentoml.api
    def score(self, user: dict[str, Any], context: dict[str, str], candidates: dict[str, Any]) -> dict[str, Any]:
        return {"scores": self.stage.score(self.ranking.rows(user, context, candidates))}


@bentoml.service
class Recommender:
    retrieval = bentoml.depends(Retrieval)
    ranking = bentoml.depends(Ranking)
    fallback = bentoml.depends(Fallback)

    def __init__(self) -> None:
        self.items = funnel.Items(WORLD, STORE)
        self.users = funnel.Users(WORLD, STORE, self.items)

    @bentoml.api(route="/v1/recommendations")
    async def recommend(self, user_id: str, k: int = 20, context: dict[str, str] = {}) -> dict[str, Any]:  # noqa: B006
        user = self.users.read(user_id)
        candidates = await self.retrieval.to_async.candidates(user, context)
        degradation = "full"
        try:
            scores = (await self.ranking.to_async.score(user, context, candidates))["scores"]
        except Exception:
            scores = (await self.fallback.to_async.score(user, context, candidates))["scores"]
            degradation = "simple_ranking"
        found = funnel.slate(self.items, candidates, scores, k)
        return {"request_id": str(uuid.uuid4()), "user_id": user_id, "items": found, "degradation": degradation}
