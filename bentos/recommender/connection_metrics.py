"""What Prometheus hears of a worker's connections."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from bentos.recommender.connections import REASONS, Connections


class ConnectionMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._open = Gauge(
            "connections",
            "Open connections.",
            namespace="streamrec",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._closed = Counter(
            "connections_closed",
            "Connections that broke a bound: `slow`, `bounds`, `malformed`, or for which there was no room: `evicted`,"
            " `full`.",
            ("reason",),
            namespace="streamrec",
            registry=registry,
        )
        self._told = dict.fromkeys(REASONS, 0)
        for reason in REASONS:
            self._closed.labels(reason)

    def tell(self, table: Connections) -> None:
        self._open.set(table.open)
        for reason, told in self._told.items():
            if (now := table.closed[reason]) > told:
                self._closed.labels(reason).inc(now - told)
                self._told[reason] = now
