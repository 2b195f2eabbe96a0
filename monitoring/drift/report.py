"""What is said of one window against its reference, feature by feature."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from monitoring.drift.base import EngineName, Result, Verdict


@dataclass(frozen=True, slots=True)
class Feature:
    """One column: what its checks say, by name of the detector. The first one is the column's own test."""

    kind: str
    checks: Mapping[str, Result]

    @property
    def said(self) -> Result:
        """The check that speaks for the column: its own test, or the surest of those that found what it did not.

        Where the column's own test cannot tell, nor can the column: the others are named in the reason.
        """
        own = next(iter(self.checks.values()))
        found = [r for r in self.checks.values() if r.drift == "drift"]
        if not found or own in found:
            return own
        if own.drift == "inconclusive":
            also = "; ".join(f"{r.test}: {r.effect:.4g}" for r in found)
            return replace(own, why=f"{own.why} ({also})")
        return min(found, key=lambda r: -1.0 if r.p_adjusted is None else r.p_adjusted)

    def document(self) -> dict[str, Any]:
        return {
            **self.said.document(),
            "kind": self.kind,
            "checks": {name: result.document() for name, result in self.checks.items()},
        }


@dataclass(frozen=True, slots=True)
class Report:
    """why: of a verdict `inconclusive`. notes: what was left out, and whatever else a reader should know."""

    verdict: Verdict
    engine: EngineName
    alpha: float
    seed: int
    rows: tuple[int, int]
    features: Mapping[str, Feature]
    outputs: Mapping[str, Result]
    concept: Mapping[str, Result]
    why: str = ""
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "why": self.why,
            "engine": self.engine,
            "alpha": self.alpha,
            "seed": self.seed,
            "rows": {"reference": self.rows[0], "current": self.rows[1]},
            "features": {name: feature.document() for name, feature in self.features.items()},
            "outputs": {name: result.document() for name, result in self.outputs.items()},
            "concept": {name: result.document() for name, result in self.concept.items()},
            "notes": list(self.notes),
            "convention": CONVENTION,
        }


CONVENTION = (
    "drift: p adjusted for all tests of the window (Benjamini and Hochberg) at most alpha, and an effect of at least "
    "the test's threshold; a test without p: the effect alone"
)
