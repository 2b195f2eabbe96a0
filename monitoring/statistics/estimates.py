"""What a statistic answers: an estimate, or that it cannot tell. Never a neutral number for "unknown"."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """effect: treatment minus control, or one arm's value. p < α exactly when 0 is outside `ci`; one arm has no p.

    on_off: counts were too small, so this is about the share of units with at least one event.
    """

    effect: float
    ci: tuple[float, float]
    p: float | None
    convention: str
    on_off: bool = False


@dataclass(frozen=True, slots=True)
class CannotTell:
    reason: str
