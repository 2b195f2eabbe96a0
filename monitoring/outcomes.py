"""Whether people do less with what they are shown: `outcome.ctr` and `outcome.calibration`, from joined labels.

`drift.concept.…` says that clicks moved, up or down, by place and slice, and is evidence of drift. An outcome is
one-sided: a fall is what somebody is called for.
"""

import pyarrow as pa

from monitoring.drift.base import Result
from monitoring.drift.correction import correct
from monitoring.drift.service.outcomes import FLOOR, Labelled, concept
from monitoring.signals import Signal, Verdict

ALPHA = 0.05
WORDS = {"ctr": "clicks for each shown item", "calibration": "clicks for each that the scores promise"}


def outcome_signals(sides: tuple[pa.Table, pa.Table] | str, model: str, at_us: int) -> list[Signal]:
    """Of the ranker's first window and this one (`anchored`), or why they cannot be compared. value: the relative fall,
    below 0 where it is a rise."""
    if isinstance(sides, str):
        return [Signal(f"outcome.{name}", model, "inconclusive", at_us, threshold=FLOOR, cause=sides) for name in WORDS]
    found = concept(*map(Labelled.of, sides), alpha=ALPHA)
    both = correct({name: found[name] for name in WORDS}, ALPHA)
    return [_signal(name, result, model, at_us) for name, result in both.items()]


def _signal(name: str, result: Result, model: str, at_us: int) -> Signal:
    if result.drift == "inconclusive":
        return Signal(f"outcome.{name}", model, "inconclusive", at_us, threshold=FLOOR, cause=result.why)
    before, now = (float(result.details[side]) for side in ("before", "now"))
    fall = 1 - now / before
    words = f"{WORDS[name]}: {before:.4g} in the ranker's first window, {now:.4g} now"
    verdict: Verdict = "breach" if result.drift == "drift" and fall > 0 else "ok"
    details = {"before": before, "now": now, "p_adjusted": result.p_adjusted, "n": list(result.n)}
    return Signal(f"outcome.{name}", model, verdict, at_us, fall, FLOOR, cause=words, details=details)
