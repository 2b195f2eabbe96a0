"""What a gateway process measures. Several processes share one folder, as the workers of a Bento do."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from bentos.recommender.metrics import SECONDS, render
from bentos.recommender.tally import Counts, Level


class GatewayMetrics:
    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry, "namespace": "streamrec_gateway"}
        self.requests = Counts(Counter("requests", "HTTP requests by route and status.", ("route", "status"), **named))
        self.errors = Counter("errors", "Exceptions that nothing expected.", ("where",), **named)
        self.in_flight = Level(Gauge("in_flight", "Requests being answered.", multiprocess_mode="livesum", **named))
        self.served = Counter(
            "recommendations", "Answers by assigned and by served variant.", ("assigned", "served"), **named
        )
        self.degradation = Counter("degradations", "Answers by rung of the ladder.", ("degradation",), **named)
        self.latency = Histogram(
            "recommendation_seconds", "From the request's headers to the last byte.", buckets=SECONDS, **named
        )
        self.attempts = Counter(
            "attempts", "Calls to a variant by what became of them.", ("variant", "outcome", "shadow"), **named
        )
        self.attempt_seconds = Histogram(
            "attempt_seconds", "Time of a call to a variant.", ("variant",), buckets=SECONDS, **named
        )
        self.failovers = Counter("failovers", "Requests that went on to the champion.", ("variant",), **named)
        self.last_resorts = Counter("last_resorts", "Answers of the gateway itself.", ("rung",), **named)
        self.shadow = Counter("shadow", "Mirrored requests by what became of them.", ("result",), **named)
        self.shadow_queue = Gauge("shadow_queue", "Mirrored requests that wait.", multiprocess_mode="livesum", **named)
        self.breaker = Gauge(
            "breaker_state",
            "0 closed, 1 half open, 2 open.",
            ("target",),
            multiprocess_mode="livemax",
            **named,
        )
        self.table_version = Gauge("table_version", "Of the routing table.", multiprocess_mode="livemin", **named)
        self.table_age = Gauge("table_age_seconds", "Since it was applied.", multiprocess_mode="livemax", **named)
        self.table_bad = Gauge(
            "table_refused", "1 while the file that lies there is refused.", multiprocess_mode="livemax", **named
        )
        self.records = Gauge(
            "records", "Exposure and attempt records so far.", ("log", "state"), multiprocess_mode="livesum", **named
        )
        self.events = Counter("events", "Events by what became of them.", ("result",), **named)

    def flush(self) -> None:
        """What requests have counted, for the next scrape."""
        self.requests.flush()
        self.in_flight.flush()

    def render(self) -> bytes:
        self.flush()
        return render(self.registry)
