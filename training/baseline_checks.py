"""Checks of the evidence that hold a training's figures against the baselines of the same rows."""

from collections.abc import Sequence

import numpy as np

from contracts.checklist import UNTIL
from contracts.evidence import Check, Verdict
from training.assess import Evaluation
from training.evaluation.ladder import ERRORS, Rung, paired
from training.evaluation.metrics import Estimate
from training.evaluation.report import Scores

METRIC, RECALL = "ndcg@10", "recall@500"
# Served in an afternoon by whoever has nothing else: the funnel as it serves has to be surely above them.
SIMPLE = ("popularity", "recency_popularity_14d", "ease")
# The strongest of the ladder: a funnel that is surely below one of them is not released. As on the ladder without the
# rules of composition, which they have none of.
STRONG = ("blend", "two_stage")


def metrics(judged: Evaluation | None) -> Check:
    """NDCG@10 against every baseline of the same table, paired over users; those of `SIMPLE` and `STRONG` decide.

    Against a simple one a difference of less than two standard errors is inconclusive; against a strong one only being
    surely below it counts.
    """
    if judged is None or not judged.n_users:
        return _no_window("metrics")
    known = {scores.name: scores for scores in judged.baselines if scores.not_run is None}
    simple = {name: paired(judged.funnel, known[name], METRIC) for name in SIMPLE if name in known}
    strong = {name: paired(judged.plain, known[name], METRIC) for name in STRONG if name in known}
    behind = {name: gain for name, gain in (simple | strong).items() if _below(gain)}
    undecided = [name for name, gain in simple.items() if not _above(gain)]
    undecided += [name for name, gain in strong.items() if not np.isfinite(gain.value - gain.se)]
    verdict: Verdict = "fail" if behind else "inconclusive" if undecided or not (simple or strong) else "pass"
    ours, plain = judged.funnel.overall[METRIC], judged.plain.overall[METRIC]
    said = [f"{METRIC} {ours.value:.4f} ± {ours.se:.4f} on {judged.n_users} users, {plain.value:.4f} without rules"]
    said += [f"surely below {name}: {gain.value:+.4f} ± {gain.se:.4f}" for name, gain in behind.items()]
    said.append(", ".join(_told(scores) for scores in judged.baselines))
    figures = {f"funnel_{METRIC}": ours.value, f"plain_{METRIC}": plain.value}
    figures |= {f"{name}_{METRIC}": scores.value(METRIC) for name, scores in known.items()}
    return Check(
        name="metrics",
        verdict=verdict,
        detail="; ".join(said),
        figures=_finite(figures),
        command=UNTIL,
    )


def baselines(judged: Evaluation | None) -> Check:
    """The ladder is whole, and it pays to climb it: the funnel is worth its cost over the simpler models.

    It fails where a simpler model is surely better. Surely not worth its cost is for a person to take on: that line
    holds a release up. What merely is not known holds nothing up, as on most small logs.
    """
    if judged is None or not judged.n_users:
        return _no_window("baselines")
    steps = judged.ladder
    missing = [rung.name for rung in steps.rungs if not np.isfinite(rung.value.value)]
    ours = steps.rung(judged.plain.name)
    said = f"{ours.name} is {ours.verdict}: {ours.why}" if ours.verdict else f"{ours.name}: {ours.why}"
    return Check(
        name="baselines",
        verdict=_worth(ours, missing),
        detail=f"{said}; the simplest within {steps.tolerance:.0%} of the best is {steps.choice or 'not known'}"
        + (f"; not run: {', '.join(missing)}" if missing else ""),
        figures=_finite({f"{rung.name}_{METRIC}": rung.value.value for rung in steps.rungs}),
        command=UNTIL,
        advisory=ours.verdict != "not worth it",
    )


def union(judged: Evaluation | None) -> Check:
    """The union of the sources finds more than the best of them: surely less is a failure, as then the others take
    places away from it."""
    if judged is None or not judged.n_users:
        return _no_window("union")
    single = {one.scores.name: one.scores for one in judged.alone}
    ours = judged.funnel.overall[RECALL]
    figures = {RECALL: ours.value} | {f"{RECALL}:{name}": scores.value(RECALL) for name, scores in single.items()}
    best = max(single, key=lambda name: single[name].value(RECALL), default=None)
    if best is None:
        detail = "no source was asked by itself"
        return Check(name="union", verdict="inconclusive", detail=detail, figures=_finite(figures), command=UNTIL)
    gain = paired(judged.funnel, single[best], RECALL)
    verdict: Verdict = "fail" if _below(gain) else "pass" if gain.value >= 0 else "inconclusive"
    return Check(
        name="union",
        verdict=verdict,
        detail=f"{RECALL} of the union {ours.value:.4f}, of the best source ({best}) {single[best].value(RECALL):.4f}:"
        f" {gain.value:+.4f} ± {gain.se:.4f}",
        figures=_finite(figures),
        command=UNTIL,
    )


def beaten(judged: Evaluation | None) -> tuple[str, ...]:
    """Baselines with a lower NDCG@10 than the funnel as served, by more than two standard errors, paired over users."""
    if judged is None or not judged.n_users:
        return ()
    gains = {s.name: paired(judged.funnel, s, METRIC) for s in judged.baselines if s.not_run is None}
    return tuple(name for name, gain in gains.items() if _above(gain))


def _no_window(name: str) -> Check:
    return Check(name=name, verdict="inconclusive", detail="no test window", command=UNTIL)


def _worth(rung: Rung, missing: Sequence[str]) -> Verdict:
    if _below(rung.gain):
        return "fail"
    return "pass" if rung.verdict == "worth it" and not missing else "inconclusive"


def _told(scores: Scores) -> str:
    return f"{scores.name} " + (f"not run ({scores.not_run})" if scores.not_run else f"{scores.value(METRIC):.4f}")


def _above(gain: Estimate) -> bool:
    return gain.value > ERRORS * gain.se


def _below(gain: Estimate) -> bool:
    return gain.value < -ERRORS * gain.se


def _finite(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if np.isfinite(value)}
