"""The serving mode counts: do the arms' mixes of degradation rungs differ, and what is the effect within rungs?"""

import math
from collections.abc import Mapping

from monitoring.statistics.always_valid import compare
from monitoring.statistics.estimates import CannotTell
from monitoring.statistics.samples import Ratio


def mix_p(control: Mapping[str, Ratio], treatment: Mapping[str, Ratio]) -> float | CannotTell:
    """Always-valid p that the mixes are one: the least p over rungs × their number (Bonferroni).

    Each rung's Ratio is over all units of its arm: x the unit's requests that this rung answered, y all its requests.
    Over units, as requests of one user share their rung; a χ² over requests would take them for independent.
    """
    rungs = sorted(set(control) | set(treatment))
    if not control or not treatment:
        return CannotTell("an arm without requests")
    if rungs == [rungs[0]]:
        return 1.0  # both arms know one rung alone
    found = []
    for rung in rungs:
        estimate = compare(control.get(rung) or _never(control), treatment.get(rung) or _never(treatment))
        if not isinstance(estimate, CannotTell) and estimate.p is not None:
            found.append(estimate.p)
    if not found:
        return CannotTell("too few units to compare the mixes")
    return min(1.0, len(rungs) * min(found))


def _never(arm: Mapping[str, Ratio]) -> Ratio:
    """Of a rung that answered none of the arm's requests."""
    some = next(iter(arm.values()))
    return Ratio(some.n, 0.0, some.sum_y, 0.0, some.sum_yy, 0.0, 0)


def stratified_effect(control: Mapping[str, Ratio], treatment: Mapping[str, Ratio]) -> float | CannotTell:
    """Effect within rungs, weighted by both arms' requests of the rung (post-stratification); rungs of both arms only.

    It stands beside intention-to-treat and never replaces it: a rung is an outcome of the arm, so its strata are not
    randomised. No interval: a unit is in several strata.
    """
    both = [r for r in control if r in treatment and control[r].sum_y > 0 and treatment[r].sum_y > 0]
    weight = math.fsum(control[r].sum_y + treatment[r].sum_y for r in both)
    if not weight:
        return CannotTell("no rung that both arms were served by")
    parts = ((control[r].sum_y + treatment[r].sum_y) * (treatment[r].value - control[r].value) for r in both)
    return math.fsum(parts) / weight
