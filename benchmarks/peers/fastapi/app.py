"""All in one handler: `uvicorn app:app`, defaults otherwise."""

import os
import uuid

import funnel
from fastapi import FastAPI
from pydantic import BaseModel, Field

WORLD, STORE = os.environ["PEER_WORLD"], os.environ["PEER_STORE"]


class Request(BaseModel):
    user_id: str
    k: int = Field(20, ge=1, le=500)
    context: dict[str, str] = {}


class Item(BaseModel):
    item_id: str
    score: float
    position: int
    sources: list[str]


class Response(BaseModel):
    request_id: str
    user_id: str
    items: list[Item]
    degradation: str


app = FastAPI()
items = funnel.Items(WORLD, STORE)
users = funnel.Users(WORLD, STORE, items)
retrieval = funnel.Retrieval(WORLD, items)
ranking = funnel.Ranking(WORLD, items)
fallback = funnel.Fallback(WORLD, items)


@app.post("/v1/recommendations")
async def recommend(request: Request) -> Response:
    user = users.read(request.user_id)
    candidates = retrieval.candidates(user, request.context)
    degradation = "full"
    try:
        scores = ranking.score(user, request.context, candidates)
    except Exception:
        scores = fallback.score(ranking.rows(user, request.context, candidates))
        degradation = "simple_ranking"
    found = funnel.slate(items, candidates, scores, request.k)
    return Response(request_id=str(uuid.uuid4()), user_id=request.user_id, items=found, degradation=degradation)
