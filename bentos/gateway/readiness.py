"""`/readyz` of a gateway: the table, who answers, and what it could serve now."""

from typing import Literal

import msgspec

from bentos.recommender.health import Component, Phase


class TableState(msgspec.Struct, frozen=True):
    """name: epoch.version of the one that holds; age_s: since it was applied; problem: of the file that lies there."""

    name: str | None
    age_s: float | None
    problem: str | None


class AddressReady(msgspec.Struct, frozen=True):
    state: str  # `ready`, `draining`, `away`, `unknown`
    ejected: bool
    in_flight: int
    detail: str


class BentoReady(msgspec.Struct, frozen=True):
    state: Literal["ready", "degraded", "away"]
    urls: dict[str, AddressReady]


class GatewayReadiness(msgspec.Struct, frozen=True):
    """`status`: `ready` (the champion answers), `degraded` (something is amiss) or `unavailable` (HTTP 503)."""

    status: Literal["ready", "degraded", "unavailable"]
    phase: Phase
    champion: str | None
    release: str | None
    table: TableState
    upstreams: dict[str, BentoReady]
    breakers: dict[str, str]  # target → closed, half_open, open
    last_resort: dict[str, int | float | None]
    components: dict[str, Component]
    pid: int


def bento_state(addresses: dict[str, AddressReady]) -> Literal["ready", "degraded", "away"]:
    well = [a.state in ("ready", "unknown") and not a.ejected for a in addresses.values()]
    return "ready" if all(well) else "degraded" if any(well) else "away"


def status(
    phase: Phase, champion_answers: bool, has_last_resort: bool, components: dict[str, Component]
) -> Literal["ready", "degraded", "unavailable"]:
    """Available as long as one of champion and last resort is there."""
    if phase != "serving" or not (champion_answers or has_last_resort):
        return "unavailable"
    well = champion_answers and all(c.state == "healthy" for c in components.values())
    return "ready" if well else "degraded"
