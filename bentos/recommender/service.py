"""The runner graph as BentoML services: thin shells over the plain classes of this package.

STREAMREC_TOPOLOGY, read when this module is imported, chooses how they are wired:

colocated     the entry makes `Retrieval.inner()`, `Ranking.inner()` and `Fallback.inner()` itself; one process
distributed   `bentoml.depends`: each in a process of its own, over Unix sockets only, as they accept pickle

Nothing raises across a process border: an exception's class does not survive it. A runner says what is wrong in its
`status`, a source's reason stands in place of its result, and a ranker that cannot score answers NaN.
"""

import asyncio
import logging
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from _bentoml_sdk import Service
from bentoml._internal.context import server_context
from numpy.typing import NDArray

from bentos.recommender import device
from bentos.recommender.assemble import PARTS, load_models
from bentos.recommender.breaker import dependency
from bentos.recommender.bundles import pinned
from bentos.recommender.compose import FunnelConfig
from bentos.recommender.entry import Entry
from bentos.recommender.following import FollowingRetrieval
from bentos.recommender.funnel import LIGHT_SHARE
from bentos.recommender.http import ASGIApp
from bentos.recommender.mending import Mending
from bentos.recommender.models import Models, RowScorer
from bentos.recommender.prewarm import read_ahead
from bentos.recommender.rules import default_rules
from bentos.recommender.runtime import Remotes, Runtime
from bentos.recommender.wire import RemoteRetrieval, RemoteScorer, pack_results, score_together, unpack
from contracts.parent import end_with_parent
from contracts.settings import Settings, load_settings
from registry.artifacts import Kind

log = logging.getLogger("streamrec.serving")

DISTRIBUTED = os.environ.get("STREAMREC_TOPOLOGY") == "distributed"
# BentoML recycles its session to a dependency after 100 requests or 300 s, under the requests that use it
# (16 clients: 154 of 2,300 failed). These settings end that.
FOR_GOOD = {"max_requests": 10**9, "max_age": 1e9}
# The entry measures and logs; BentoML's own log line and counters a hop would cost more than the hop.
QUIET: dict[str, Any] = {"metrics": {"enabled": False}, "logging": {"access": {"enabled": False}}}
RUNNER: dict[str, Any] = {**QUIET, "runner_connection": FOR_GOOD, "traffic": {"timeout": 10}}
BATCH = 32  # requests, of about 500 candidates each
MEND_S = 3.0  # between two looks for parts that were missing
LOST = 5  # failures in a row after which a GPU is taken for lost
# BentoML would drop what has waited for longer, by an estimate of its own. What each request says of its time is
# better: this is the longest that one can have.
BATCH_LATENCY_MS = 60_000
BATCHED: dict[str, Any] = {
    "batchable": True,
    "batch_dim": 0,
    "max_batch_size": BATCH,
    "max_latency_ms": BATCH_LATENCY_MS,
}


def _service(decorated: Any) -> Any:
    """What `@bentoml.service` makes of a class is a `Service`; type checkers still see the class."""
    return decorated


def _end_with_arbiter() -> None:
    """Under `bentoml serve` a killed arbiter would leave its workers on the port. They alone have a worker index."""
    if server_context.worker_index is not None:
        end_with_parent(os.getppid())


def serving_settings() -> Settings:
    """BentoML changes the working directory to the Bento's sources before it imports this file: a relative `home` is
    meant from where the command was typed.
    """
    where = Path(os.environ.get("PWD") or ".")
    settings = load_settings(file=where / os.environ.get("STREAMREC_CONFIG", "streamrec.toml"))
    names = ("home", "bundles", "rules", "user_keys")
    paths = {name: where / path for name in names if (path := getattr(settings, name))}
    return settings.model_copy(update=paths)


class _Loaded:
    """All bundles, as what serves must fit together, but of them only `parts`; arrays are mapped, so that is cheap.

    given: loaded by somebody else, who sees to it.
    """

    def __init__(self, given: Models | None, parts: tuple[str, ...]) -> None:
        settings = serving_settings()
        pins = pinned(_service(Recommender).bento, settings.bundles)
        load = partial(load_models, pins.folders, providers=device.providers(settings.device), parts=parts)
        self.models = given or load()
        self._mending = None if given else Mending(load, pins.folders)
        self._looked = time.monotonic()

    async def mended(self) -> bool:
        """Whether there are other models now, as files have changed. Asked often, it looks every few seconds."""
        if self._mending is None or time.monotonic() - self._looked < MEND_S:
            return False
        self._looked = time.monotonic()
        better = await asyncio.to_thread(self._mending.look, self.models.problems)
        self.models = better or self.models
        return better is not None

    def status(self, kind: Kind) -> dict[str, Any]:
        """What `/readyz` of the entry tells of this process."""
        gone = self._mending.gone if self._mending else {}
        problems = {name: why for name, why in {**gone, **self.models.problems}.items() if name.split(".")[0] == kind}
        return {"problems": problems, "provider": self.models.provider, "pid": os.getpid()}


def _scores(scorer: RowScorer | None, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [R]; NaN where it cannot be said: the caller takes its next ranker."""
    if scorer is not None:
        try:
            return scorer.score(np.ascontiguousarray(rows, dtype=np.float32))
        except Exception:
            log.exception("the ranker failed on %s rows", len(rows))
    return np.full(len(rows), np.nan, dtype=np.float32)


@bentoml.service(name="Retrieval", **RUNNER)
class Retrieval:
    """Graph, content, trending and two-tower sources."""

    def __init__(self, models: Models | None = None) -> None:
        _end_with_arbiter()
        self.loaded = _Loaded(models, ("sources",))
        home = serving_settings().home
        self.stage = FollowingRetrieval(home, self.loaded.models, default_rules(), FunnelConfig())
        if models is None:  # a process of its own
            self.stage.start()

    @bentoml.api
    def retrieve(self, payload: dict[str, Any]) -> dict[str, Any]:
        """`wire.pack` in, `wire.pack_results` out."""
        sources, query, user, limits = unpack(payload)
        return pack_results(self.stage.retrieve(sources, query, user, limits))

    @bentoml.api
    async def status(self) -> dict[str, Any]:
        if await self.loaded.mended():
            self.stage.rebase(self.loaded.models)
        return self.loaded.status("retrieval")


@bentoml.service(name="Ranking", **RUNNER)
class Ranking:
    """The bundle's ranker over the candidates of requests. Concurrent requests are ranked in one batch."""

    def __init__(self, models: Models | None = None) -> None:
        _end_with_arbiter()
        self.loaded = _Loaded(models, ("ranker",))
        self.batches, self.rows, self.largest, self.failed = 0, 0, 0, 0

    @bentoml.api(**BATCHED)
    def score(self, asked: list[dict[str, Any]]) -> list[Any]:
        """`wire.pack_rows` in; for each float32 [R]."""
        return score_together(self._scored, asked)

    def _scored(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.batches += 1
        self.rows += len(rows)
        self.largest = max(self.largest, len(rows))
        scores = _scores(self.loaded.models.ranker, rows)
        self.failed = self.failed + 1 if np.isnan(scores).any() else 0
        if self.failed >= LOST and self.loaded.models.provider == device.CUDA:
            # A GPU that was lost does not come back to the process that lost it; until another one is there the light
            # ranker answers.
            log.critical("%s batches in a row failed on the GPU: this process ends, to be started again", self.failed)
            os.kill(os.getpid(), signal.SIGTERM)
        return scores

    @bentoml.api
    async def status(self) -> dict[str, Any]:
        await self.loaded.mended()
        counts = {"batches": self.batches, "rows": self.rows, "largest": self.largest}
        return {**self.loaded.status("ranking"), **counts}


@bentoml.service(name="Fallback", **RUNNER)
class Fallback:
    """The logistic ranker. The popularity lists live in the entry too: they must outlive this process."""

    def __init__(self, models: Models | None = None) -> None:
        _end_with_arbiter()
        self.loaded = _Loaded(models, ("logistic",))

    @bentoml.api(**BATCHED)
    def score(self, asked: list[dict[str, Any]]) -> list[Any]:
        """As `Ranking.score`."""
        return score_together(lambda rows: _scores(self.loaded.models.light, rows), asked)

    @bentoml.api
    async def status(self) -> dict[str, Any]:
        await self.loaded.mended()
        return self.loaded.status("fallback")


class EntryService(Service):
    """A BentoML service whose application is wrapped in the entry; `bentoml build` and `bentoml serve` keep it."""

    runtime: Runtime | None = None

    def on_load_bento(self, bento: Any) -> None:
        """BentoML's own refuses a Bento that was built in the other topology; the code is the same in both."""
        for service in self.all_services().values():
            service.bento = bento

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        return Entry(super().to_asgi(is_main), lambda: self.runtime)


@bentoml.service(name="Recommender", service_class=EntryService, **QUIET)
class Recommender:
    """The entry service. Its HTTP interface is /v1/openapi.json."""

    if DISTRIBUTED:
        retrieval = bentoml.depends(Retrieval)
        ranking = bentoml.depends(Ranking)
        fallback = bentoml.depends(Fallback)

    def __init__(self) -> None:
        _end_with_arbiter()
        settings = serving_settings().model_copy(update={"topology": "distributed" if DISTRIBUTED else "colocated"})
        pins = pinned(_service(Recommender).bento, settings.bundles)
        read_ahead(pins.folders)
        remotes = None
        parts = () if DISTRIBUTED else PARTS
        load = partial(load_models, pins.folders, providers=device.providers(settings.device), parts=parts)
        models = load()
        if DISTRIBUTED:
            policy = dependency(settings.breaker_open_s)
            retrieval_s, ranking_s = settings.retrieval_budget_ms / 1e3, settings.ranking_budget_ms / 1e3
            remotes = Remotes(
                RemoteRetrieval("Retrieval", self.retrieval.to_async, policy, budget_s=retrieval_s),
                RemoteScorer("Ranking", self.ranking.to_async, policy, budget_s=(1 - LIGHT_SHARE) * ranking_s),
                RemoteScorer("Fallback", self.fallback.to_async, policy, budget_s=LIGHT_SHARE * ranking_s),
            )
        else:
            self.retrieval = _service(Retrieval).inner(models)
            self.ranking = _service(Ranking).inner(models)
            self.fallback = _service(Fallback).inner(models)
        self.runtime = _service(Recommender).runtime = Runtime(settings, pins, models, remotes, load)

    @bentoml.on_startup
    async def start(self) -> None:
        await self.runtime.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        await self.runtime.close()
