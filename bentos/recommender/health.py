"""`/readyz` as a document: each component, the device, the versions and what an answer can be at best."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from bentos.recommender.breaker import Breaker
from contracts.serving import Cause

State = Literal["healthy", "degraded", "unhealthy"]
GAUGE: dict[State, float] = {"healthy": 1.0, "degraded": 0.5, "unhealthy": 0.0}
Phase = Literal["loading", "serving", "draining", "stopped"]


class Component(msgspec.Struct, frozen=True):
    state: State
    detail: str = ""


class Change(msgspec.Struct, frozen=True):
    """From rung `before` to `rung`. at: ISO 8601, UTC. detail: what the part at fault said, else empty."""

    at: str
    before: str
    rung: str
    cause: Cause
    detail: str = ""


class Readiness(msgspec.Struct, frozen=True):
    """`status`: `ready`, `degraded` (answers, from a lower rung) or `unavailable` (HTTP 503)."""

    status: Literal["ready", "degraded", "unavailable"]
    phase: Phase
    components: dict[str, Component]
    best: str  # the best rung that an answer can have now
    rung: str  # that of most answers, see rungs.py
    changes: list[Change]  # the last 20, newest last
    breakers: dict[str, str]  # dependency → `closed`, `half_open` or `open`
    topology: str
    device: dict[str, str]
    bento: str
    models: dict[str, str]
    rules: str
    pid: int


def with_breakers(components: Mapping[str, Component], breakers: Mapping[str, Breaker]) -> dict[str, Component]:
    """A part that is left alone for a while does not serve, however it looks from here."""
    found = dict(components)
    for name, breaker in breakers.items():
        part = name.removesuffix("_replica")
        if breaker.state != "closed" and found[part].state == "healthy":
            found[part] = Component("degraded", f"{name} has failed in a row: its breaker is {breaker.state}")
    return found


def best_rung(best: str, store: Component, stale_items: Sequence[str]) -> str:
    """`best`: what the models allow. Without the store, or with item features past their TTL, no answer is `full`."""
    return "stale_features" if best == "full" and (store.state != "healthy" or stale_items) else best


READY: dict[str, float] = {"ready": 1.0, "degraded": 0.5, "unavailable": 0.0}


def status(phase: Phase, components: Mapping[str, Component]) -> Literal["ready", "degraded", "unavailable"]:
    """Degraded parts still serve; only a process that is loading, draining or without the last resort does not.

    The last resort (`fallback`) may be away as long as retrieval is there, and the other way round.
    """
    if phase != "serving":
        return "unavailable"
    if "catalogue" in components and components["catalogue"].state == "unhealthy":
        return "unavailable"  # which items were taken down is not known: nothing may be shown
    serving = [components[name].state for name in ("retrieval", "fallback") if name in components]
    if serving and all(state == "unhealthy" for state in serving):
        return "unavailable"
    return "ready" if all(c.state == "healthy" for c in components.values()) else "degraded"
