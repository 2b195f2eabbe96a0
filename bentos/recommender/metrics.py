"""What a serving process measures, in a registry of its own: another Bento on the machine cannot wipe it.

With several workers on one port each process writes memory-mapped files into one folder under `run/`
(prometheus_client's multi-process mode, chosen by the parent through PROMETHEUS_MULTIPROC_DIR), and any worker answers
for all.
"""

import collections
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from bentos.recommender.metrics_folder import PREFIX
from bentos.recommender.tally import Counts, Level, Times
from contracts.serving import DEGRADATIONS
from features.registry import REGISTRY

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1.0, 2.5)


class Metrics:
    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry, "namespace": "streamrec"}
        self.requests = Counts(Counter("requests", "HTTP requests by route and status.", ("route", "status"), **named))
        answers = Counter(
            "recommendations",
            "Recommendations by rung of the ladder and by ranker.",
            ("degradation", "ranked_by"),
            **named,
        )
        latency = Histogram(
            "recommendation_seconds",
            "From the request's headers to the last byte.",
            ("degradation",),
            buckets=SECONDS,
            **named,
        )
        stages = Histogram("stage_seconds", "Time of each stage.", ("stage",), buckets=SECONDS, **named)
        stale = Counter(
            "stale_features",
            "Answers in which a feature stood at its default because its value was past its TTL. `online_store`: the"
            " store did not answer, and all features of the user did.",
            ("feature",),
            **named,
        )
        self.errors = Counter("errors", "Exceptions that no rung expected.", ("where",), **named)
        self.events = Counter("events", "Events by what became of them.", ("result",), **named)
        self.in_flight = Level(Gauge("in_flight", "Requests being answered.", multiprocess_mode="livesum", **named))
        self.queue = Gauge("compute_queue", "Jobs of the compute thread.", multiprocess_mode="livesum", **named)
        self.lag = Gauge("loop_lag_seconds", "How late the event loop is.", multiprocess_mode="livemax", **named)
        self.shares = Gauge(
            "overload_share",
            "Of requests that are not refused (`answered`), and of lists that are read from the store (`read`).",
            ("of",),
            multiprocess_mode="livemin",
            **named,
        )
        self.admitted = Counts(
            Counter("admissions", "Requests by the rung that they were let in at, or refused.", ("aim",), **named)
        )
        self.ready = Gauge(
            "ready", "1 ready, 0.5 degraded, 0 nothing can be served.", multiprocess_mode="livemin", **named
        )
        self.rung = Gauge(
            "rung",
            "Rung of most answers: 0 full, 1 stale_features, 2 simple_ranking, 3 batch, 4 cached, 5 popularity.",
            multiprocess_mode="livemax",
            **named,
        )
        self.changes = Counter("rung_changes", "Changes of that rung.", ("from", "to", "cause"), **named)
        self.ranking = Gauge(
            "ranking_process",
            "Batches and rows that the Ranking process has scored, and its largest batch.",
            ("count",),
            multiprocess_mode="livemax",
            **named,
        )
        self.records = Gauge(
            "records", "Exposure and context records so far.", ("log", "state"), multiprocess_mode="livesum", **named
        )
        self.health = Gauge(
            "component_health",
            "1 healthy, 0.5 degraded, 0 unhealthy.",
            ("component",),
            multiprocess_mode="livemin",
            **named,
        )
        self.breaker = Gauge(
            "breaker_state",
            "Of a dependency: 0 closed, 1 half open, 2 open.",
            ("dependency",),
            multiprocess_mode="livemax",
            **named,
        )
        self.reads = Counter("store_reads", "Reads of the online store by how they went.", ("how",), **named)
        self.calls = Counter(
            "runner_calls", "Calls to a runner's process that went wrong, by how.", ("runner", "how"), **named
        )
        self.not_begun = Counter(
            "stages_not_begun", "Stages left out, as the time was up or nobody waited.", ("stage",), **named
        )
        self.batch_age = Gauge(
            "batch_age_seconds",
            "Of the published lists, on the data set's clock, as last read; 0 while none was.",
            multiprocess_mode="livemax",
            **named,
        )
        self.info = Gauge(
            "build_info",
            "Constant 1: what is served.",
            ("bento", "kind", "model"),
            multiprocess_mode="livemax",
            **named,
        )
        # What was taken over, by the counter that it came from: those live as long as the process.
        self._taken_over: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for degradation in DEGRADATIONS:  # a rate over a series that is not there is no rate
            latency.labels(degradation)
        for feature in ("online_store", *(d.name for d in REGISTRY if d.ttl_us is not None)):
            stale.labels(feature)
        self._answers, self._stale = Counts(answers), Counts(stale)
        self._latency, self._stages = Times(latency, SECONDS), Times(stages, SECONDS)

    def served(
        self,
        degradation: str,
        ranked_by: str,
        seconds: float,
        stages_ms: Mapping[str, float],
        stale: Sequence[str] = (),
    ) -> None:
        for feature in stale:
            self._stale.add(feature)
        self._answers.add(degradation, ranked_by)
        self._latency.observe(degradation, seconds)
        observe = self._stages.observe
        for stage, ms in stages_ms.items():
            observe(stage, ms / 1000)

    def flush(self) -> None:
        """What requests have counted, for the next scrape."""
        for tally in (
            self.admitted,
            self.requests,
            self.in_flight,
            self._answers,
            self._stale,
            self._latency,
            self._stages,
        ):
            tally.flush()

    def take_over(self, counter: Counter, counts: "collections.Counter[str]", *labels: str) -> None:
        """Add what was counted elsewhere, on whichever thread, since the last time."""
        before = self._taken_over[id(counts)]
        for name, count in list(counts.items()):
            counter.labels(*labels, name).inc(count - before[name])
            before[name] = count

    def render(self) -> bytes:
        self.flush()
        return render(self.registry)


def render(registry: CollectorRegistry) -> bytes:
    """Prometheus text: of all processes that share a folder, or of this one."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    if Path(folder).name.startswith(PREFIX):
        merged = CollectorRegistry()
        MultiProcessCollector(merged, path=folder)  # type: ignore[no-untyped-call]
        return generate_latest(merged)
    return generate_latest(registry)
