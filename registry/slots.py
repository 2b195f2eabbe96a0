"""Room in a layer: experiments of one layer with slots apart share no unit. Slots are shares of a hash, 0 to 1."""

from collections.abc import Iterable

from contracts.errors import Refused
from contracts.routing import ExperimentRoute

Slot = tuple[float, float]
LEAST = 1e-6  # of a slot; below it is rounding


def free(routes: Iterable[ExperimentRoute], layer: str) -> tuple[Slot, ...]:
    """What nobody has of `layer`, in order."""
    found: list[Slot] = []
    at = 0.0
    for lo, hi in [*sorted(r.slot for r in routes if r.layer == layer), (1.0, 1.0)]:
        if lo - at > LEAST:
            found.append((at, lo))
        at = max(at, hi)
    return tuple(found)


def allot(routes: Iterable[ExperimentRoute], layer: str, share: float) -> Slot:
    """The first free place of this width. Experiments stay where they are: one that moved would change its users.

    Raises:
        Refused: no free place is wide enough.
    """
    places = free(routes, layer)
    for lo, hi in places:
        if hi - lo >= share - LEAST:
            return lo, min(round(lo + share, 9), hi)
    raise Refused(
        f"layer {layer} has no {share:g} in one piece: {told(places)}", next_command="streamrec experiment list"
    )


def told(places: tuple[Slot, ...]) -> str:
    if not places:
        return "nothing is free"
    parts = ", ".join(f"{lo:g} to {hi:g}" for lo, hi in places)
    return f"free is {parts} ({sum(hi - lo for lo, hi in places):.3g} in all)"
