"""What the funnel loses when a part of it is taken away, as a table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from training.evaluation.metrics import Estimate

Kind = Literal["source", "features", "rule"]
Verdict = Literal["earns its place", "does harm", "inconclusive"]

ALPHA = 0.05  # that any part of the table gets a verdict by chance alone


class AblationConfig(BaseModel):
    """How many people are asked again without each part."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: int = Field(300, ge=0, description="test users that parts are taken away for; 0: nothing is ablated")


@dataclass(frozen=True, slots=True)
class Ablated:
    """The funnel without one part. value: its NDCG@10; change, recall_change: without minus with, paired over users.

    recall_change: of recall@500; unknown where the candidates stay the same. cost_us: CPU time that a request is
    spared, the middle one; NaN where the part has no time of its own. columns: of a group; inputs: what has to be known
    for them. shown: what the first ten are like without it. why: what a reader must know of this line.
    """

    kind: Kind
    name: str
    value: Estimate
    change: Estimate
    recall_change: Estimate
    cost_us: float
    columns: int = 0
    inputs: tuple[str, ...] = ()
    shown: Mapping[str, float] = field(default_factory=dict)
    why: str = ""

    def plain(self) -> dict[str, Any]:
        """For JSON; a figure that is not known is None."""
        figures = {
            "ndcg@10": self.value.value,
            "ndcg@10_change": self.change.value,
            "ndcg@10_change_se": self.change.se,
            "recall@500_change": self.recall_change.value,
            "recall@500_change_se": self.recall_change.se,
            "cost_us": self.cost_us,
        }
        return {
            "kind": self.kind,
            "without": self.name,
            **{name: value if math.isfinite(value) else None for name, value in figures.items()},
            "columns": self.columns,
            "inputs": list(self.inputs),
            **self.shown,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Ablations:
    """parts: sources, groups of columns, rules. whole: NDCG@10 of the funnel as served, of the same users; recall: its
    recall@500. request_us: CPU time of a whole request, the middle one; rows_us: of it, for all columns; shared_us: of
    that, what stays without the groups of columns that have a cost of their own."""

    parts: tuple[Ablated, ...]
    whole: Estimate
    recall: Estimate
    shown: Mapping[str, float]
    request_us: float
    rows_us: float
    shared_us: float
    seconds: float

    def of(self, kind: Kind) -> list[Ablated]:
        """The one that is missed most comes first."""
        known = [part for part in self.parts if part.kind == kind]
        return sorted(known, key=lambda part: part.change.value if math.isfinite(part.change.value) else math.inf)

    def verdict(self, part: Ablated) -> Verdict | None:
        """By NDCG@10, and where that is open by recall@500, beyond the chance that any line of the table is
        (Bonferroni). None for a rule: what it is for is not NDCG."""
        if part.kind == "rule":
            return None
        known = sum(math.isfinite(p.change.se) and p.kind != "rule" for p in self.parts)
        z = NormalDist().inv_cdf(1 - ALPHA / max(known, 1) / 2)
        for found in (part.change, part.recall_change):
            if math.isfinite(found.se) and abs(found.value) > z * found.se:
                return "earns its place" if found.value < 0 else "does harm"
        return "inconclusive"

    def table(self) -> list[dict[str, Any]]:
        return [
            part.plain() | {"verdict": self.verdict(part)}
            for kind in ("source", "features", "rule")
            for part in self.of(kind)
        ]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "users": self.whole.n,
            "ndcg@10": _number(self.whole.value),
            "ndcg@10_se": _number(self.whole.se),
            "recall@500": _number(self.recall.value),
            "shown": dict(self.shown),
            "request_us": _number(self.request_us),
            "rows_us": _number(self.rows_us),
            "shared_us": _number(self.shared_us),
            "seconds": round(self.seconds, 2),
            "parts": self.table(),
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
