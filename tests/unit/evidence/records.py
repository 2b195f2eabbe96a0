"""Records of a release with known behaviour, as tables of the logs, and the sums by plain Python."""

from collections import defaultdict
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from bentos.telemetry.event_log import EVENTS_ARROW
from bentos.telemetry.kinds import ATTEMPTS, EXPOSURES
from contracts.attempts import Attempt, Compared
from contracts.events import Event
from contracts.exposures import Exposure, Versions
from registry.releases.policy import Metric

RELEASE = "r1"
BEGIN_US = 1_700_000_000_000_000
SECOND, HOUR = 1_000_000, 3_600_000_000
VERSIONS = Versions(bento="b", retrieval="", ranking="", fallback="", rules="")

METRICS = (
    Metric(name="errors", kind="error_rate", direction="lower", critical=True, limit=0.01, slices=("country",)),
    Metric(name="slow", kind="latency_over", direction="lower", limit_ms=50, limit=0.05),
    Metric(name="rungs", kind="degradation", direction="lower", margin=0.02),
    Metric(name="empty", kind="empty", direction="lower", limit=0.02, slices=("country", "device")),
    Metric(name="ctr", kind="ctr", direction="higher", critical=True, margin=0.1, relative=True, slices=("country",)),
    Metric(name="buyers", kind="event_rate", event="purchase", direction="higher", margin=0.1, slices=("device",)),
    Metric(name="orders", kind="event_mean", event="purchase", direction="higher", margin=0.1),
    Metric(name="revenue", kind="value_mean", event="purchase", direction="higher", margin=1.0),
)


def exposure(request: str, user: str, arm: str, at_us: int, items: list[str], **more: Any) -> Exposure:
    values: dict[str, Any] = {
        "request_id": request,
        "timestamp_us": at_us,
        "clock_us": at_us,
        "unit": user,
        "user_id": user,
        "assigned": arm,
        "served": arm,
        "probability": 0.5,
        "exploration": False,
        "slate_propensity": None,
        "outcome": "ok" if items else "empty",
        "degradation": "full",
        "item_ids": items,
        "versions": VERSIONS,
        "experiments": {RELEASE: arm} if arm in ("candidate", "control") else {},
    }
    return Exposure(**(values | more))


def attempt(request: str, user: str, variant: str, at_us: int, **more: Any) -> Attempt:
    values: dict[str, Any] = {
        "request_id": request,
        "timestamp_us": at_us,
        "unit": user,
        "user_id": user,
        "variant": variant,
        "shadow": False,
        "bento": "b",
        "release": RELEASE,
        "step": "canary 5 %",
        "outcome": "ok",
        "status": 200,
        "ms": 10.0,
        "degradation": "full",
        "n_items": 3,
        "k": 3,
        "score_min": 0.1,
        "score_max": 0.9,
        "schema_ok": True,
        "context": {},
    }
    return Attempt(**(values | more))


def event(user: str, item: str, name: str, at_us: int, request: str | None, value: float | None = None) -> Event:
    id_ = f"{user}/{item}/{name}/{at_us}/{request}"
    return Event(id_, user, item, name, at_us, at_us, request, value=value)


def exposures(records: list[Exposure]) -> pa.Table:
    return EXPOSURES.table(records)


def attempts(records: list[Attempt]) -> pa.Table:
    return ATTEMPTS.table(records)


def events(records: list[Event]) -> pa.Table:
    rows = [msgspec.structs.asdict(e) | {"context": list(e.context.items())} for e in records]
    return pa.Table.from_pylist(rows, schema=EVENTS_ARROW)


class World:
    """A few hundred users of both arms and the champion, with everything that can happen to them."""

    def __init__(self, seed: int = 1, users: int = 300, requests: int = 2000) -> None:
        rng = np.random.default_rng(seed)
        arms = ["candidate", "control", "champion"]
        self.exposures: list[Exposure] = []
        self.attempts: list[Attempt] = []
        self.events: list[Event] = []
        self.context: dict[str, dict[str, str]] = {}
        for number in range(requests):
            who = int(rng.integers(users))
            user, arm, request = f"u{who}", arms[who % 3], f"request-{number}"
            at_us = BEGIN_US + number * 20 * SECOND
            context = {"device": str(rng.choice(["ios", "web"]))}
            if rng.random() < 0.9:
                context["country"] = str(rng.choice(["DE", "FR", "US"]))
            self.context[request] = context
            outcome = str(rng.choice(["ok", "ok", "ok", "ok", "error", "late", "open"]))
            empty = outcome == "ok" and rng.random() < 0.1
            items = [] if empty else [f"i{i}" for i in rng.choice(50, 3, replace=False)]
            rung = str(rng.choice(["full", "full", "simple_ranking", "popularity"]))
            self.exposures.append(exposure(request, user, arm, at_us, items, degradation=rung))
            own = {"outcome": outcome, "ms": float(rng.uniform(1, 100)), "context": context}
            own |= {"n_items": len(items)} if outcome == "ok" else {"n_items": 0, "degradation": None, "status": 500}
            own |= {"degradation": rung} if outcome == "ok" else {}
            self.attempts.append(attempt(request, user, arm, at_us, **own))
            if outcome != "ok" and arm != "champion":
                self.attempts.append(attempt(request, user, "champion", at_us + 1, context=context))
            for item in items:
                for _ in range(int(rng.poisson(0.4))):
                    later = at_us + int(rng.exponential(9) * HOUR)
                    self.events.append(event(user, item, "click", later, request))
                if rng.random() < 0.1:
                    self.events.append(event(user, item, "purchase", at_us + HOUR, request, float(rng.integers(1, 90))))
            if rng.random() < 0.1:
                self.events.append(event(user, "elsewhere", "click", at_us + SECOND, request))  # not in the slate
            if rng.random() < 0.05:
                late = at_us + int(rng.exponential(20) * HOUR)
                self.events.append(event(user, "any", "purchase", late, None, 5.0))

    @property
    def now_us(self) -> int:
        return BEGIN_US + 60 * HOUR

    def sums(self, metric: Metric, arm: str, country: str | None = None) -> tuple[float, ...]:
        """n, Σx, Σy, Σx², Σy², Σxy, on: from loops over the records."""
        x: dict[str, float] = defaultdict(float)
        y: dict[str, float] = defaultdict(float)
        within = metric.attribution_hours * HOUR
        shown = {e.request_id: e for e in self.exposures if e.assigned == arm}
        first: dict[str, int] = {}
        for e in shown.values():
            if country in (None, self.context[e.request_id].get("country")):
                first[e.unit] = min(first.get(e.unit, e.timestamp_us), e.timestamp_us)
        if metric.kind == "ctr":
            clicked = set()
            for e in shown.values():
                if country in (None, self.context[e.request_id].get("country")):
                    y[e.unit] += len(e.item_ids)
            for act in self.events:
                found = shown.get(act.request_id or "")
                if act.event != "click" or found is None or act.item_id not in found.item_ids:
                    continue
                if country not in (None, self.context[found.request_id].get("country")):
                    continue
                if act.timestamp_us - found.timestamp_us <= within and (act.request_id, act.item_id) not in clicked:
                    clicked.add((act.request_id, act.item_id))
                    x[found.unit] += 1
        elif metric.kind in ("event_rate", "event_mean", "value_mean"):
            y |= dict.fromkeys(first, 1.0)
            for act in self.events:
                if act.event != metric.event:
                    continue
                found = shown.get(act.request_id or "")
                begun = found.timestamp_us if found else first.get(act.user_id) if act.request_id is None else None
                if begun is None or (found and act.item_id not in found.item_ids):
                    continue
                if act.timestamp_us - begun <= within:
                    x[act.user_id] += (act.value or 0.0) if metric.kind == "value_mean" else 1.0
            if metric.kind == "event_rate":
                x = defaultdict(float, {unit: min(1.0, v) for unit, v in x.items()})
        else:
            for call in self.attempts:
                if call.variant != arm or call.outcome == "open":
                    continue
                if country not in (None, call.context.get("country")):
                    continue
                ok = call.outcome == "ok"
                top, bottom = {
                    "error_rate": (not ok, True),
                    "latency_over": (call.outcome == "late" or call.ms > (metric.limit_ms or 0), True),
                    "degradation": (ok and call.degradation != "full", ok),
                    "empty": (ok and call.n_items == 0, ok),
                }[metric.kind]
                x[call.unit] += top
                y[call.unit] += bottom
        units = [u for u in y if y[u] > 0]
        xs, ys = np.array([x[u] for u in units]), np.array([y[u] for u in units])
        return (
            len(units),
            float(xs.sum()),
            float(ys.sum()),
            float((xs * xs).sum()),
            float((ys * ys).sum()),
            float((xs * ys).sum()),
            int((xs > 0).sum()),
        )


def compared(correlation: float | None, overlap: float = 0.5) -> Compared:
    return Compared(overlap=overlap, common=5, correlation=correlation, ms_served=10.0)
