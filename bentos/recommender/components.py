"""What `/readyz` says of each part of a serving process."""

from bentos.recommender.health import Component
from bentos.recommender.wire import RemoteRetrieval, RemoteScorer
from bentos.telemetry.segments import Counts


def away(problem: str) -> Component:
    return Component("degraded", problem) if problem else Component("healthy")


def exposures(problem: str | None, counts: Counts) -> Component:
    """As writing goes now. What went wrong since the start is counted in `/metrics`."""
    return away(f"{problem}; {counts.queued} wait, {counts.dropped} dropped" if problem else "")


def part(name: str, problems: dict[str, str], remote: RemoteRetrieval | RemoteScorer | None) -> Component:
    """Unhealthy: the part is not there. Degraded: something in it is not.

    problems: of what this process loads, by part or `part.piece`. remote: the process that has the part, if one has.
    """
    if remote is not None:
        # What this process does not load of the part is no problem of it; the popularity lists it does load.
        problems = {**remote.status.get("problems", {}), **{p: why for p, why in problems.items() if p == name}}
        if remote.problem:
            return Component("degraded" if name == "fallback" and name not in problems else "unhealthy", remote.problem)
    if name in problems:
        return Component("unhealthy", problems[name])
    inner = {piece: why for piece, why in problems.items() if piece.startswith(name + ".")}
    return away("; ".join(f"{piece}: {why}" for piece, why in inner.items()))
