"""Ray Serve deployments composed by their handles: `python app.py PORT`, defaults otherwise."""

import os
import signal
import sys
import uuid

import funnel
import ray
from fastapi import FastAPI
from pydantic import BaseModel, Field
from ray import serve
from ray.serve.handle import DeploymentHandle

WORLD, STORE = os.environ["PEER_WORLD"], os.environ["PEER_STORE"]
SHARE = {"num_cpus": 0.25}  # four deployments on the one core that all servers of the comparison have


class Request(BaseModel):
    user_id: str
    k: int = Field(20, ge=1, le=500)
    context: dict[str, str] = {}


@serve.deployment(ray_actor_options=SHARE)
class Retrieval:
    def __init__(self) -> None:
        self.stage = funnel.Retrieval(WORLD, funnel.Items(WORLD, STORE))

    def candidates(self, user, context):
        return self.stage.candidates(user, context)


@serve.deployment(ray_actor_options=SHARE)
class Ranking:
    def __init__(self) -> None:
        self.stage = funnel.Ranking(WORLD, funnel.Items(WORLD, STORE))

    def score(self, user, context, candidates):
        return self.stage.score(user, context, candidates)


@serve.deployment(ray_actor_options=SHARE)
class Fallback:
    def __init__(self) -> None:
        items = funnel.Items(WORLD, STORE)
        self.stage, self.ranking = funnel.Fallback(WORLD, items), funnel.Ranking(WORLD, items)

    def score(self, user, context, candidates):
        return self.stage.score(self.ranking.rows(user, context, candidates))


app = FastAPI()


@serve.deployment(ray_actor_options=SHARE)
@serve.ingress(app)
class Recommender:
    def __init__(self, retrieval: DeploymentHandle, ranking: DeploymentHandle, fallback: DeploymentHandle) -> None:
        self.retrieval, self.ranking, self.fallback = retrieval, ranking, fallback
        self.items = funnel.Items(WORLD, STORE)
        self.users = funnel.Users(WORLD, STORE, self.items)

    @app.post("/v1/recommendations")
    async def recommend(self, request: Request) -> dict:
        user = self.users.read(request.user_id)
        candidates = await self.retrieval.candidates.remote(user, request.context)
        degradation = "full"
        try:
            scores = await self.ranking.score.remote(user, request.context, candidates)
        except Exception:
            scores = await self.fallback.score.remote(user, request.context, candidates)
            degradation = "simple_ranking"
        found = funnel.slate(self.items, candidates, scores, request.k)
        return {
            "request_id": str(uuid.uuid4()),
            "user_id": request.user_id,
            "items": found,
            "degradation": degradation,
        }


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    try:
        serve.run(Recommender.bind(Retrieval.bind(), Ranking.bind(), Fallback.bind()), blocking=True)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
