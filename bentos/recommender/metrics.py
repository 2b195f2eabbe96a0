"""What a serving process measures, in a registry of its own: another Bento on the machine cannot wipe it.

With several workers on one port each process writes memory-mapped files into one folder under `run/`
(prometheus_client's multi-process mode, chosen by the parent through PROMETHEUS_MULTIPROC_DIR), and any worker answers
for all.
"""

import os
from collections.abc import Sequence
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
from contracts.serving import DEGRADATIONS
from features.registry import REGISTRY

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1.0, 2.5)


class Metrics:
    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry, "namespace": "streamrec"}
        self.requests = Counter("requests", "HTTP requests by route and status.", ("route", "status"), **named)
        self.answers = Counter(
            "recommendations",
            "Recommendations by rung of the ladder and by ranker.",
            ("degradation", "ranked_by"),
            **named,
        )
        self.latency = Histogram(
            "recommendation_seconds",
            "From the request's headers to the last byte.",
            ("degradation",),
            buckets=SECONDS,
            **named,
        )
        self.stages = Histogram("stage_seconds", "Time of each stage.", ("stage",), buckets=SECONDS, **named)
        self.stale = Counter(
            "stale_features",
            "Answers in which a feature stood at its default because its value was past its TTL. `online_store`: the"
            " store did not answer, and all features of the user did.",
            ("feature",),
            **named,
        )
        self.errors = Counter("errors", "Exceptions that no rung expected.", ("where",), **named)
        self.events = Counter("events", "Events by what became of them.", ("result",), **named)
        self.in_flight = Gauge("in_flight", "Requests being answered.", multiprocess_mode="livesum", **named)
        self.queue = Gauge("compute_queue", "Jobs of the compute thread.", multiprocess_mode="livesum", **named)
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
        self.info = Gauge(
            "build_info",
            "Constant 1: what is served.",
            ("bento", "kind", "model"),
            multiprocess_mode="livemax",
            **named,
        )
        for degradation in DEGRADATIONS:  # a rate over a series that is not there is no rate
            self.latency.labels(degradation)
        # Looked up once: an answer of a service that nobody materialises for has a dozen of them.
        self._stale = {d.name: self.stale.labels(d.name) for d in REGISTRY if d.ttl_us is not None}
        self._stale["online_store"] = self.stale.labels("online_store")

    def served(
        self,
        degradation: str,
        ranked_by: str,
        seconds: float,
        stages_ms: "dict[str, float]",
        stale: Sequence[str] = (),
    ) -> None:
        for feature in stale:
            self._stale[feature].inc()
        self.answers.labels(degradation, ranked_by).inc()
        self.latency.labels(degradation).observe(seconds)
        for stage, ms in stages_ms.items():
            self.stages.labels(stage).observe(ms / 1000)

    def render(self) -> bytes:
        return render(self.registry)


def render(registry: CollectorRegistry) -> bytes:
    """Prometheus text: of all processes that share a folder, or of this one."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    if Path(folder).name.startswith(PREFIX):
        merged = CollectorRegistry()
        MultiProcessCollector(merged, path=folder)  # type: ignore[no-untyped-call]
        return generate_latest(merged)
    return generate_latest(registry)
