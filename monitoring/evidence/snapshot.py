"""The evidence of a release at one moment: figures with always-valid intervals, or words on why there are none.

α: `policy.alpha_of(metric)`. A metric with slices gives half of it to them, whose own correction shares it out.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from contracts.measurements import ArmCount, Measured, Snapshot
from monitoring.evidence.cells import Sums
from monitoring.evidence.tally import BY_ATTEMPT, Tally
from monitoring.statistics.always_valid import compare, estimate, rate_bounds
from monitoring.statistics.estimates import CannotTell, Estimate
from monitoring.statistics.mix import mix_p, stratified_effect
from monitoring.statistics.multiplicity import compare_slices
from monitoring.statistics.samples import Proportion, Ratio, Sample
from monitoring.statistics.srm import always_valid
from registry.releases.policy import Metric
from registry.releases.values import Release

NO_DATA = "no data yet"
SHADOW_ONLY = frozenset({"p99_ms", "score_correlation", "score_range", "schema", "overlap", "score_shift"})
# Numerator and denominator count the same attempts, so that few events can be judged exactly.
RATES = frozenset({"error_rate", "latency_over", "degradation", "empty", "score_range", "schema"})
ONE_OF_A_HUNDRED = 0.01  # what is slower than p99


def snapshot(release: Release, tally: Tally, now_us: int, ready: Mapping[str, bool] | None = None) -> Snapshot:
    """Everything that the policy names, as of now. Kinds `sql` and `watch` are not the tally's: see their files."""
    step = release.current
    shadow = step is None or step.kind == "shadow"
    compared = not shadow and step is not None and step.weight < 100
    arms = {name: tally.arm(name) for name in ("candidate", "control", "champion", "shadow")}
    metrics = {
        m.name: _measured(m, release, tally, shadow, compared, arms)
        for m in release.policy.metrics
        if m.kind not in ("sql", "watch")
    }
    return Snapshot(
        release=release.id,
        step=release.step,
        taken_us=now_us,
        since_us=tally.since_us,
        arms={name: arm for name, arm in arms.items() if arm.units},
        metrics=metrics,
        srm_p=_srm_p(arms, step.split) if compared and step else None,
        rung_mix_p=_rung_mix_p(tally) if compared else None,
        panel=dict(tally.panel) if shadow else {},
        ready=dict(ready or {}),
    )


def _measured(
    metric: Metric, release: Release, tally: Tally, shadow: bool, compared: bool, arms: Mapping[str, ArmCount]
) -> Measured:
    arm = "shadow" if shadow else "candidate"
    if shadow and metric.kind not in BY_ATTEMPT and metric.kind != "p99_ms":
        return Measured(name=metric.name, problem="nobody is on the candidate in a shadow step")
    if not shadow and metric.kind in SHADOW_ONLY:
        return Measured(name=metric.name, problem="measured in a shadow step only")
    alpha = release.policy.alpha_of(metric)
    if metric.kind == "p99_ms":
        return _p99(metric, tally, arm, alpha)
    sliced = bool(metric.slices) and (compared or metric.limit is not None)
    alpha = alpha / 2 if sliced else alpha
    mine = tally.sums(metric.name, arm)
    theirs = tally.sums(metric.name, "control") if compared else None
    found = measure(metric, mine, theirs, alpha)
    samples = round(mine.sum_y) if metric.kind in BY_ATTEMPT or metric.kind == "ctr" else arms[arm].requests
    more: dict[str, Any] = {"samples": samples}
    if sliced:
        more["slices"] = _slices(metric, tally, arm, alpha, compared)
    if compared and metric.kind == "ctr":
        more["stratified_effect"] = _stratified(metric, tally)
    return found.model_copy(update=more)


def measure(metric: Metric, mine: Sums, theirs: Sums | None, alpha: float, name: str = "") -> Measured:
    """One metric of one arm, beside its control where there is one."""
    name = name or metric.name
    known: dict[str, Any] = {"n": mine.n, "n_control": theirs.n if theirs else 0}
    if not mine.n:
        return Measured(name=name, problem=NO_DATA, **known)
    sample = sample_of(metric, mine)
    known["value"] = sample.value
    one = estimate(sample, alpha=alpha, rate=metric.kind in RATES)
    problems = []
    if isinstance(one, CannotTell):
        problems.append(one.reason)
    else:
        known |= {"value_ci": one.ci, "convention": one.convention}
    if theirs is not None:
        if not theirs.n:
            return Measured(name=name, problem="no data of the control yet", **known)
        control = sample_of(metric, theirs)
        both = compare(control, sample, alpha=alpha)
        if isinstance(both, CannotTell):
            problems.append(both.reason)
        else:
            known |= {"control": control.value, "effect": both.effect, "ci": both.ci, "p": both.p}
            known["convention"] = both.convention
    # A limit is judged by the value alone, a comparison by the effect alone.
    judged = "value_ci" if metric.limit is not None or theirs is None else "effect"
    problem = None if judged in known else "; ".join(problems)
    return Measured(name=name, problem=problem, **known)


def sample_of(metric: Metric, sums: Sums) -> Sample:
    """The sums as what statistics knows. A mean over units is a ratio with y = 1 each: so it is guarded against few
    events, as heavy-tailed revenue needs."""
    return Proportion(sums.n, round(sums.sum_x)) if metric.kind == "event_rate" else ratio_of(sums)


def ratio_of(sums: Sums) -> Ratio:
    return Ratio(sums.n, sums.sum_x, sums.sum_y, sums.sum_xx, sums.sum_yy, sums.sum_xy, sums.on)


def _slices(metric: Metric, tally: Tally, arm: str, alpha: float, compared: bool) -> dict[str, Measured]:
    """Those with enough units. Against a limit: α shared out over them (Bonferroni). Against the control: e-BH at α."""
    least = metric.slice_least_units
    of = {name: sums for name, sums in tally.slices(metric.name).items() if sums[arm].n >= least}
    if metric.limit is not None or not compared:
        return {name: measure(metric, sums[arm], None, alpha / len(of), name) for name, sums in of.items()}
    of = {name: sums for name, sums in of.items() if sums["control"].n >= least}
    samples = {name: (sample_of(metric, s["control"]), sample_of(metric, s[arm])) for name, s in of.items()}
    found = compare_slices(samples, q=alpha, least_units=least)
    measured = {}
    for name, one in found.items():
        control, mine = samples[name]
        known = {"n": mine.n, "n_control": control.n, "samples": round(of[name][arm].sum_y)}
        if isinstance(one, CannotTell):
            measured[name] = Measured(name=name, problem=one.reason, **known)
        else:
            measured[name] = _beside(name, mine, control, one, known)
    return measured


def _beside(name: str, mine: Sample, control: Sample, found: Estimate, known: Mapping[str, int]) -> Measured:
    return Measured(
        name=name,
        n=known["n"],
        n_control=known["n_control"],
        samples=known["samples"],
        value=mine.value,
        control=control.value,
        effect=found.effect,
        ci=found.ci,
        p=found.p,
        convention=found.convention,
    )


def _p99(metric: Metric, tally: Tally, arm: str, alpha: float) -> Measured:
    """p99 in ms, and its bounds: the least t that surely, and that possibly, at most 1 % of the attempts exceed.

    Attempts of one unit count as wholly dependent: bounds are of Kish's effective number of them.
    """
    sums = tally.attempts(arm)
    if not sums.n:
        return Measured(name=metric.name, problem=NO_DATA)
    lat, code = tally.latencies, tally.code(arm)
    effective = int(sums.sum_y**2 / sums.sum_yy)
    slower = lat.slower(code) * (effective / lat.count(code))

    def bounds(i: int) -> tuple[float, float]:
        return rate_bounds(round(float(slower[i])), effective, alpha)

    low = _first(len(slower), lambda i: bounds(i)[0] <= ONE_OF_A_HUNDRED)
    high = _first(len(slower), lambda i: bounds(i)[1] <= ONE_OF_A_HUNDRED)
    p99 = lat.quantile(code, 1 - ONE_OF_A_HUNDRED)
    known = {"n": sums.n, "samples": round(sums.sum_y)}
    convention = f"always-valid bounds of the share slower, {effective} effective attempts of {known['samples']}"
    if high >= len(slower) - 1 or not np.isfinite(p99):
        lower = float(lat.edges[min(low, len(slower) - 2)])
        known_low = f"at least {lower:.3g} ms, no upper bound yet"
        # A lower bound alone can break a limit; with none it is only too little data.
        if metric.limit is not None and lower > metric.limit and np.isfinite(lower):
            most = float(lat.edges[-2])
            value = p99 if np.isfinite(p99) else most
            return Measured(name=metric.name, value=value, value_ci=(lower, most), convention=convention, **known)
        return Measured(name=metric.name, problem=f"too few attempts for p99: {known_low}", **known)
    ends = (float(lat.edges[low]), float(lat.edges[high]))
    return Measured(name=metric.name, value=p99, value_ci=ends, convention=convention, **known)


def _first(n: int, holds: Callable[[int], bool]) -> int:
    """Least i below n - 1 for which it holds, n - 1 if for none; it is monotone."""
    low, high = 0, n - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _srm_p(arms: Mapping[str, ArmCount], split: float) -> float | None:
    counts = [arms["candidate"].units, arms["control"].units]
    return always_valid(counts, [split, 1 - split]) if sum(counts) else None


def _rung_mix_p(tally: Tally) -> float | None:
    """None where it cannot be told: no arm has answers, or one rung answered all."""
    mixes = [{rung: ratio_of(s) for rung, s in tally.rung_sums(arm).items()} for arm in ("control", "candidate")]
    if not all(mixes):
        return None
    found = mix_p(mixes[0], mixes[1])
    return None if isinstance(found, CannotTell) else found


def _stratified(metric: Metric, tally: Tally) -> float | None:
    of = [
        {rung: ratio_of(s) for rung, s in tally.metric_by_rung(metric.name, arm).items()}
        for arm in ("control", "candidate")
    ]
    if not all(of):
        return None
    found = stratified_effect(of[0], of[1])
    return None if isinstance(found, CannotTell) else found
