"""One metric, one verdict: figures against a limit, or a candidate against its concurrent control. Pure.

Intervals are always valid, so that a failure needs no least number of units. A pass needs figures; silence is
`inconclusive`.
"""

import math
from dataclasses import dataclass
from typing import Literal

from contracts.evidence import Verdict
from contracts.measurements import Measured, MetricVerdict
from registry.releases.policy import Metric

ON_OFF = "on-off"  # in a convention: the effect is of shares of units, to which no margin of the metric applies


@dataclass(frozen=True, slots=True)
class Setting:
    """Where it is judged. control: there is a concurrent one. prove: demand non-inferiority. mix_differs: the arms were
    answered by different rungs of the ladder, so that they do not compare the candidate with the champion."""

    control: bool
    prove: bool = False
    mix_differs: bool = False


def judge(metric: Metric, measured: Measured | None, setting: Setting) -> MetricVerdict:
    """The verdict on the metric, slices included. One that this step cannot judge at all is a `report`."""
    role = metric.role
    if role == "report" or (metric.limit is None and metric.margin is None):
        verdict, reason, role = "inconclusive", f"reported only: {_figures(metric, measured)}", "report"
    elif metric.margin is not None and not setting.control:
        verdict, reason, role = "inconclusive", "no control in this step: not judged here", "report"
    else:
        verdict, reason = _whole(metric, measured, setting)
    return MetricVerdict(name=metric.name, verdict=verdict, reason=reason, critical=metric.critical, role=role)


def _whole(metric: Metric, measured: Measured | None, setting: Setting) -> tuple[Verdict, str]:
    if measured is None:
        return "inconclusive", "not measured"
    verdict, reason = _one(metric, measured, setting)
    failed = [
        f"{name}: {why}"
        for name, (word, why) in {name: _slice(metric, part, setting) for name, part in measured.slices.items()}.items()
        if word == "fail"
    ]
    if failed:
        return "fail", "; ".join(failed) if verdict != "fail" else f"{reason}; {'; '.join(failed)}"
    return verdict, reason


def _slice(metric: Metric, measured: Measured, setting: Setting) -> tuple[Verdict, str]:
    """A slice can only fail: that it is too small to show harm stops nobody."""
    compared = metric.margin is not None
    if min(measured.n, measured.n_control if compared else measured.n) < metric.slice_least_units:
        return "inconclusive", f"n {measured.n:,}, least {metric.slice_least_units:,}"
    return _one(metric, measured, setting)


def _one(metric: Metric, measured: Measured, setting: Setting) -> tuple[Verdict, str]:
    if measured.problem:
        return "inconclusive", f"cannot be told: {measured.problem}"
    if metric.limit is not None:
        return _against_limit(metric, measured, metric.limit)
    verdict, reason = _against_control(metric, measured, metric.margin or 0.0, setting.prove)
    # The degradation metric judges the mix itself. A critical guardrail that fails has failed, whoever answered.
    stands = metric.kind == "degradation" or (metric.critical and verdict == "fail")
    if setting.mix_differs and not stands:
        return "inconclusive", f"the arms' mixes of rungs differ; {reason}"
    return verdict, reason


def _against_limit(metric: Metric, measured: Measured, limit: float) -> tuple[Verdict, str]:
    """fail: the whole interval is beyond the limit. pass: the value keeps to it (the step asks for least samples)."""
    value, ci = measured.value, measured.value_ci
    if measured.n < 1 or value is None or ci is None or _blank(value, *ci):
        return "inconclusive", f"no figures yet (n {measured.n:,})"
    sign = 1.0 if metric.direction == "lower" else -1.0
    harm_from = sign * (ci[0] if sign > 0 else ci[1])
    most = "at most" if sign > 0 else "at least"
    words = f"{_figures(metric, measured)}, limit {most} {limit:.6g}"
    if harm_from > sign * limit:
        return "fail", words
    if sign * value <= sign * limit:
        return "pass", words
    return "inconclusive", f"{words}: beyond it, but not beyond doubt"


def _against_control(metric: Metric, measured: Measured, margin: float, prove: bool) -> tuple[Verdict, str]:
    """fail: harm beyond doubt that is not wholly within the margin. pass: no such harm; to prove: wholly within it."""
    effect, ci = measured.effect, measured.ci
    if min(measured.n, measured.n_control) < 1 or effect is None or ci is None or _blank(effect, *ci):
        return "inconclusive", f"no comparison yet (n {measured.n:,} and {measured.n_control:,})"
    sign = 1.0 if metric.direction == "higher" else -1.0
    worst, best = sorted((sign * ci[0], sign * ci[1]))  # below 0 is harm
    on_off = ON_OFF in measured.convention
    allowed: float | None = margin
    if metric.relative:
        allowed = None if measured.control is None or _blank(measured.control) else margin * abs(measured.control)
    within = allowed is not None and not on_off and worst > -allowed
    words = _figures(metric, measured) + (f", margin {allowed:.6g}" if allowed is not None and not on_off else "")
    if best < 0 and not within:
        return "fail", f"harm: {words}"
    if not prove:
        return "pass", f"no harm shown: {words}"
    if within:
        return "pass", f"not worse than by the margin: {words}"
    if on_off:
        return "inconclusive", f"too few events to prove anything: {words}"
    if allowed is None:
        return "inconclusive", f"the control has no value to take {margin:.3g} of: {words}"
    return "inconclusive", f"not proven yet: {words}"


def _figures(metric: Metric, measured: Measured | None) -> str:
    if measured is None:
        return "not measured"
    if measured.problem:
        return measured.problem
    compared = metric.margin is not None
    figure, ci = (measured.effect, measured.ci) if compared else (measured.value, measured.value_ci)
    units = f"n {measured.n:,}" + (f" and {measured.n_control:,}" if compared else "")
    interval = f" [{ci[0]:.6g}, {ci[1]:.6g}]" if ci else ""
    name: Literal["effect", "value"] = "effect" if compared else "value"
    return f"{name} {'unknown' if figure is None else f'{figure:.6g}'}{interval}, {units}"


def _blank(*figures: float) -> bool:
    """NaN is no figure, and an interval without bounds says nothing."""
    return not all(map(math.isfinite, figures))
