"""Is a slice within its limit? Intervals decide: what could be either is inconclusive. NumPy only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from contracts.evidence import Verdict
from contracts.quality import SliceLimits
from training.evaluation.metrics import Estimate

Z = 1.96
ALPHA = 0.05  # that any slice of a table fails by chance alone


@dataclass(frozen=True, slots=True)
class Part:
    """One slice against the whole. low, high: the 95 % interval of `value`, within [0, 1]; NaN unknown.

    limit: the least that its figure may be; NaN where it is not judged.
    """

    name: str
    metric: str
    n: int
    value: float
    low: float
    high: float
    whole: float
    limit: float
    verdict: Verdict
    why: str

    @property
    def judged(self) -> bool:
        return math.isfinite(self.limit)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        figures = {name: getattr(self, name) for name in ("value", "low", "high", "whole", "limit")}
        return {
            "slice": self.name,
            "metric": self.metric,
            "n": self.n,
            **{name: value if math.isfinite(value) else None for name, value in figures.items()},
            "verdict": self.verdict,
            "why": self.why,
        }


def compare(metric: str, whole: Estimate, slices: Mapping[str, Estimate], policy: SliceLimits) -> list[Part]:
    """One `Part` a slice, in their order.

    A slice fails when its figure is below its limit beyond the chance that any of them is (Bonferroni), and passes
    when it is above it with 95 %.
    """
    count = sum(e.n >= policy.least_users and policy.of(name) < 1 for name, e in slices.items())
    z_fail = NormalDist().inv_cdf(1 - ALPHA / max(count, 1))
    z_pass = NormalDist().inv_cdf(0.95)
    return [_compare(name, metric, whole, part, policy, z_fail, z_pass) for name, part in slices.items()]


def _compare(
    name: str, metric: str, whole: Estimate, part: Estimate, policy: SliceLimits, z_fail: float, z_pass: float
) -> Part:
    share = 1 - policy.of(name)
    low, high = max(0.0, part.value - Z * part.se), min(1.0, part.value + Z * part.se)
    limit = share * whole.value

    def said(verdict: Verdict, why: str, limit: float = limit) -> Part:
        return Part(name, metric, part.n, part.value, low, high, whole.value, limit, verdict, why)

    if not part.n:
        return said("inconclusive", "no event in the test window")
    if share <= 0:
        return said("pass", "told, not judged: the policy exempts it", math.nan)
    if part.n < policy.least_users:
        return said("inconclusive", f"{part.n} users, of {policy.least_users} to judge by")
    noise = math.hypot(part.se, share * whole.se)
    if not (math.isfinite(limit) and math.isfinite(noise)):
        return said("inconclusive", "no interval")
    if part.value + z_fail * noise < limit:
        return said("fail", f"below {limit:.4f}, which is {share:.0%} of the whole")
    if part.value - z_pass * noise >= limit:
        return said("pass", f"above {limit:.4f}, which is {share:.0%} of the whole")
    return said("inconclusive", f"its interval does not tell it from {limit:.4f}")


def worst(parts: list[Part]) -> Part | None:
    """The slice with the lowest figure relative to its whole, of those with enough users to be judged."""
    known = [part for part in parts if part.judged and math.isfinite(part.value) and "users, of" not in part.why]
    return min(known, key=lambda part: part.value / max(part.whole, 1e-12), default=None)
