"""What an experiment's evidence says, metric by metric, by the plan that was frozen when it started."""

from collections.abc import Callable
from typing import Any

from monitoring.experiments.analyze import judge
from monitoring.statistics.multiplicity import share_alpha
from monitoring.statistics.samples import Ratio
from registry.experiments import Experiment

Sums = Callable[[str, str], Ratio]  # of a metric's name and an arm, `control` or `treatment`
Units = Callable[[str], int]  # of an arm: all that were assigned to it and seen, whether or not a metric has them


def report(experiment: Experiment, sums: Sums, units: Units) -> dict[str, Any]:
    """The primary metric's document, with those of all metrics under `metrics`; always valid at any look.

    α: the primary metric has the plan's, the others share as much again by their weights.
    """
    plan = experiment.plan
    split = (1 - plan.route.split, plan.route.split)
    counts = (units("control"), units("treatment"))
    others = {m.name: m.weight for m in plan.metrics if m.role != "primary"}
    alphas = share_alpha(others, plan.alpha) if others else {}
    found = {}
    for metric in plan.metrics:
        found[metric.name] = {
            "name": metric.name,
            "role": metric.role,
            **judge(
                sums(metric.name, "control"),
                sums(metric.name, "treatment"),
                method="sequential",
                alpha=alphas.get(metric.name, plan.alpha),
                tuning_n=plan.tuning_n,
                split=split,
                counts=counts,
                direction=metric.direction,
            ),
        }
    primary = next(m.name for m in plan.metrics if m.role == "primary")
    return {
        "experiment": experiment.id,
        "sha256": experiment.sha256,
        "hypothesis": plan.hypothesis,
        **{k: v for k, v in found[primary].items() if k not in ("name", "role")},
        "primary": primary,
        "metrics": list(found.values()),
    }
