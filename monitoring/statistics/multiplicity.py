"""Many questions at once: false-discovery rates over slices, and α shared out over guardrails."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

from monitoring.statistics.always_valid import TUNING_N, compare
from monitoring.statistics.estimates import CannotTell, Estimate
from monitoring.statistics.samples import Sample

Key = TypeVar("Key", bound=Hashable)


def adjusted(p: Mapping[Key, float]) -> dict[Key, float]:
    """Benjamini & Hochberg's p-values: `adjusted(p)[k] <= q` where they select k at rate q (up to rounding)."""
    found: dict[Key, float] = {}
    least = 1.0
    for k, (name, value) in sorted(enumerate(sorted(p.items(), key=lambda item: item[1]), 1), reverse=True):
        least = min(least, value * len(p) / k)
        found[name] = least
    return found


def benjamini_hochberg(p: Mapping[str, float], q: float) -> frozenset[str]:
    """Names that Benjamini & Hochberg (1995) select. For p-values that are independent or positively dependent."""
    ordered = sorted(p.items(), key=lambda item: item[1])
    last = max((k for k, (_, value) in enumerate(ordered, 1) if value <= q * k / len(p)), default=0)
    return frozenset(name for name, _ in ordered[:last])


# On e = 1 / p, e-BH (Wang & Ramdas 2022) selects what BH selects on p, and needs no assumption on dependence.
# Always-valid p-values here are one over an e-value (or over the mean of two).
e_bh = benjamini_hochberg


def compare_slices(
    slices: Mapping[str, tuple[Sample, Sample]],
    *,
    q: float = 0.05,
    tuning_n: int = TUNING_N,
    least_units: int = 100,
) -> dict[str, Estimate | CannotTell]:
    """(control, treatment) of each slice, with intervals at q R / K where e-BH selects R of K slices; at least q / K.

    e-BY (Xu, Wang & Ramdas 2022): among the intervals without 0, the share of false ones is at most q on average.
    """
    judged = {name: arms for name, arms in slices.items() if min(a.n for a in arms) >= least_units}
    found: dict[str, Estimate | CannotTell] = {
        name: CannotTell(f"fewer than {least_units} units in an arm") for name in slices.keys() - judged.keys()
    }
    if not judged:
        return found

    def at(alpha: float) -> dict[str, Estimate | CannotTell]:
        return {n: compare(c, t, alpha=alpha, tuning_n=tuning_n, tuning_alpha=q) for n, (c, t) in judged.items()}

    p = {name: e.p for name, e in at(q).items() if isinstance(e, Estimate) and e.p is not None}
    selected = len(e_bh(p, q)) if p else 0
    return found | at(q * max(selected, 1) / max(len(p), 1))


def share_alpha(weights: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Bonferroni by weight: the shares sum to α."""
    if not weights or any(w <= 0 for w in weights.values()):
        raise ValueError("weights are over 0")
    whole = sum(weights.values())
    return {name: alpha * w / whole for name, w in weights.items()}
