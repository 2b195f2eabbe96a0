"""Whether a drift matters: how much the ranker hangs on what moved, and whether outcomes moved with it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["none", "low", "moderate", "high"]
Outcomes = Literal["moved", "as before", "not known"]

# Of the weighted PSI, as PSI is read by custom (Siddiqi, Credit Risk Scorecards, 2006).
MODERATE, HIGH = 0.1, 0.25
# Checks that have no PSI and matter by themselves: the same items' vectors are not those that the ranker learned from.
GRAVE = frozenset({"embedding.items"})


@dataclass(frozen=True, slots=True)
class Severity:
    """weighted: Σ importance share × PSI over what drifted; with importance unknown, each column has the same share.
    unweighed: checks that drifted and have no PSI, which the sum says nothing of."""

    level: Level
    weighted: float
    by_importance: bool
    outcomes: Outcomes
    unweighed: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        weights = "by importance" if self.by_importance else "all columns alike: their importance is not known"
        others = f"; without PSI: {', '.join(self.unweighed)}" if self.unweighed else ""
        return f"{self.level}: weighted PSI {self.weighted:.3f} ({weights}){others}; outcomes {self.outcomes}"


def shares_of(importance: Mapping[str, float], columns: tuple[str, ...]) -> dict[str, float]:
    """Column → its part of the importance, which sums to 1 over all of the ranker's columns; empty where unknown."""
    total = sum(max(value, 0.0) for value in importance.values())
    return {c: max(importance.get(c, 0.0), 0.0) / total for c in columns} if total else {}


def severity(
    drifted: Mapping[str, float],
    importance: Mapping[str, float],
    columns: int,
    outcomes: Outcomes,
    unweighed: Collection[str] = (),
) -> Severity:
    """
    Args:
        drifted: column → PSI of those that drifted, seasonal ones left out. importance: column → share, empty unknown.
        columns: how many were looked at. unweighed: checks that drifted and have no PSI.
    """
    even = 1 / max(columns, 1)
    weighted = sum((importance.get(c, 0.0) if importance else even) * psi for c, psi in drifted.items())
    level: Level = "none"
    if drifted or unweighed:
        moderate = weighted >= MODERATE or not GRAVE.isdisjoint(unweighed)
        level = "high" if weighted >= HIGH else "moderate" if moderate else "low"
    if outcomes == "moved":
        level = "high"  # people are served worse or otherwise: that matters whatever the inputs weigh
    return Severity(level, weighted, bool(importance), outcomes, tuple(sorted(unweighed)))
