"""The watch on /metrics: alerts as Prometheus' own `ALERTS` has them, signals, burn rates, checks, trainings."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from monitoring.alerts.grouping import Alert, Notice
from monitoring.alerts.outbox import message
from monitoring.watch.schema import Schema, highest
from monitoring.watch.watch import Tick

STATES = {"pending": "pending", "firing": "firing", "clearing": "firing"}
VERDICTS = {"ok": 0.0, "inconclusive": 0.5, "breach": 1.0}


class WatchMetrics(Collector):
    """Of the last round; a thread of the HTTP server reads while the watch writes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._lock = threading.Lock()
        self._last: tuple[Tick, Schema | None, int] = (Tick(leading=False), None, 0)

    def show(self, tick: Tick, schema: Schema | None, now_us: int) -> None:
        with self._lock:
            self._last = (tick, schema, now_us)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            tick, schema, now_us = self._last
        yield _gauge("watch_leading", "1: this watch has the lease and looks.", [], [((), float(tick.leading))])
        state = tick.state
        alerts = list(state.alerts.values()) if state else []
        looks = dict(state.looks) if state else {}
        yield _gauge(
            "alerts",
            "1 for each alert that is pending or firing.",
            ["alertname", "alertstate", "model", "severity", "owner"],
            [(labels, 1.0) for alert in alerts if (labels := _alert(alert, schema)) is not None],
        )
        signals = state.signals if state else []
        yield _gauge(
            "signal_verdict",
            "0 ok, 0.5 inconclusive, 1 breach.",
            ["signal", "model"],
            [((s.name, s.model), VERDICTS[s.verdict]) for s in signals],
        )
        yield _gauge(
            "signal_value",
            "In the unit of the check.",
            ["signal", "model"],
            [((s.name, s.model), s.value) for s in signals if s.value is not None],
        )
        yield _gauge(
            "signal_threshold",
            "What the value is held against.",
            ["signal", "model"],
            [((s.name, s.model), s.threshold) for s in signals if s.threshold is not None],
        )
        yield _gauge(
            "burn_rate",
            "Of the error budget of a service level: 1 is as fast as 30 days allow.",
            ["level", "window"],
            [
                ((s.name, f"{w[f'{part}_minutes']}m"), float(w[part]))
                for s in signals
                for w in s.details.get("windows", ())
                for part in ("long", "short")
                if w[part] is not None
            ],
        )
        of_look: Sequence[tuple[str, str, Any]] = (
            ("check_age_seconds", "Since a check last looked.", lambda look: max(0, now_us - look.at_us) / 1e6),
            ("check_crashes", "Of a check, in a row.", lambda look: float(look.crashes)),
            ("check_cpu_seconds", "Of its last look.", lambda look: look.cpu_s),
        )
        for name, about, value in of_look:
            rows = [(tuple(key.split("|", 1)), float(value(look))) for key, look in looks.items()]
            yield _gauge(name, about, ["check", "model"], rows)
        waiting: dict[str, int] = {}
        for entry in state.outbox if state else ():
            waiting[entry["channel"]] = waiting.get(entry["channel"], 0) + 1
        yield _gauge(
            "notices_waiting", "Not told yet.", ["channel"], [((name,), float(n)) for name, n in waiting.items()]
        )
        given_up = state.given_up if state else {}
        yield _gauge(
            "notices_given_up",
            "Never told, of all: refused again and again, or away for a week.",
            ["channel"],
            [((name,), float(n)) for name, n in given_up.items()],
        )
        ends = [str(run["state"]) for run in tick.runs]
        yield _gauge(
            "retrainings",
            "Of those that are remembered, by what became of them.",
            ["state"],
            [((name,), float(ends.count(name))) for name in sorted({"running", "done", "failed", *ends})],
        )


def _alert(alert: Alert, schema: Schema | None) -> tuple[str, ...] | None:
    if alert.phase not in STATES or schema is None:
        return None
    severity, owner = severity_and_owner(alert, schema)
    return alert.subject, STATES[alert.phase], alert.model, severity, owner


def severity_and_owner(alert: Alert, schema: Schema) -> tuple[str, str]:
    """As the messages of the alert have said it, while it is raised; of a pending one, as they would."""
    signals = alert.breaches or [alert.signals[name] for name in alert.told if name in alert.signals]
    criticality = highest(alert.told.values() or [schema.criticality(s) for s in signals])
    about = (alert.id, alert.model, alert.subject, alert.began_us)
    told = message(Notice("raised", *about, None, "", tuple(signals), criticality=criticality), schema)
    return told.criticality, told.owner


def _gauge(
    name: str, about: str, labels: list[str], rows: Sequence[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"streamrec_{name}", about, labels=labels)
    for values, value in rows:
        family.add_metric(list(values), value)
    return family
