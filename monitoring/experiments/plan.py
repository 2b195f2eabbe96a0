"""`experiment plan`: sample size and duration from baseline, least effect, power and traffic."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from contracts.errors import UsageError
from monitoring.statistics.power import (
    Design,
    Method,
    Size,
    bernoulli_variance,
    convention,
    days,
    power_at,
    sample_size,
)

MOST_LOOKS = 100
GROUPED = "; {} equal looks, Lan-DeMets spending of O'Brien-Fleming type, alpha / 2 a side"
HELP = "streamrec experiment plan --help"


@dataclass(frozen=True, slots=True)
class Question:
    """effect: absolute, or a share of `baseline` when `relative`. traffic: units a day that enter the experiment."""

    metric: Literal["proportion", "mean"]
    effect: float
    baseline: float | None = None
    sd: float | None = None
    relative: bool = False
    power: float = 0.8
    alpha: float = 0.05
    split: float = 0.5
    traffic: float | None = None
    method: Method = "fixed"
    tuning_n: int = 5000
    looks: int = 1  # of a fixed design: equally spaced, with Lan-DeMets O'Brien-Fleming bounds


def plan(question: Question) -> dict[str, Any]:
    """
    Raises:
        UsageError: the question has no answer; it says which option is off.
    """
    _check(question)
    effect = question.effect * (question.baseline or 0.0) if question.relative else question.effect
    if effect == 0:
        raise UsageError("--effect: 0 is an effect that no experiment can see", next_command=HELP)
    try:
        design = Design(question.alpha, question.power, question.split, question.method, question.tuning_n)
        control, treatment = _variances(question, effect)
        size = sample_size(effect, control, treatment, design)
        bounds: tuple[float, ...] = ()
        if question.looks > 1:
            size, bounds = _grouped(size, question)
    except ValueError as error:
        raise UsageError(f"no such plan: {error}", next_command=HELP) from error
    return {
        "n_control": size.n_control,
        "n_treatment": size.n_treatment,
        "days": days(size.total, question.traffic) if question.traffic else None,
        "convention": convention(design) + (GROUPED.format(question.looks) if bounds else ""),
        "effect": effect,
        **({"bounds": list(bounds)} if bounds else {"power": power_at(effect, control, treatment, size.total, design)}),
        **({"fixed": _fixed(effect, control, treatment, question)} if question.method == "sequential" else {}),
    }


def _grouped(size: Size, question: Question) -> tuple[Size, tuple[float, ...]]:
    """The size at the last look, and |z| to stop at, a look each."""
    from monitoring.statistics.sequential import bounds, inflation

    information = [(i + 1) / question.looks for i in range(question.looks)]
    found = bounds(information, question.alpha)
    more = inflation(information, found, question.alpha, question.power)
    return Size(math.ceil(size.n_control * more), math.ceil(size.n_treatment * more)), found


def _fixed(effect: float, control: float, treatment: float, question: Question) -> dict[str, int]:
    """What one look would have needed: the price of looking at any time."""
    size: Size = sample_size(effect, control, treatment, Design(question.alpha, question.power, question.split))
    return {"n_control": size.n_control, "n_treatment": size.n_treatment}


def _variances(question: Question, effect: float) -> tuple[float, float]:
    if question.sd is not None:
        return question.sd**2, question.sd**2
    baseline = question.baseline or 0.0
    return bernoulli_variance(baseline), bernoulli_variance(baseline + effect)


def _check(question: Question) -> None:
    def off(option: str, what: str) -> UsageError:
        return UsageError(f"{option}: {what}", next_command=HELP)

    for option in ("effect", "baseline", "sd", "power", "alpha", "split", "traffic"):
        value = getattr(question, option)
        if value is not None and not math.isfinite(value):
            raise off(f"--{option}", f"{value} is no number")
    for option in ("power", "alpha", "split"):
        if not 0 < getattr(question, option) < 1:
            raise off(f"--{option}", f"{getattr(question, option)} is not between 0 and 1")
    if question.traffic is not None and question.traffic <= 0:
        raise off("--traffic", f"{question.traffic} units a day")
    if question.tuning_n < 1:
        raise off("--tuning-n", f"{question.tuning_n} units")
    if not 1 <= question.looks <= MOST_LOOKS:
        raise off("--looks", f"{question.looks} is not 1 to {MOST_LOOKS}")
    if question.looks > 1 and question.method == "sequential":
        raise off("--looks", "a sequential test is looked at as often as you like; it is for --method fixed")
    if question.baseline is None and (question.metric == "proportion" or question.relative):
        raise off("--baseline", "a proportion and a relative effect need it")
    if question.metric == "proportion":
        baseline = question.baseline or 0.0
        if not 0 < baseline < 1:
            raise off("--baseline", f"a proportion of {baseline} is not between 0 and 1")
        if question.sd is not None:
            raise off("--sd", "a proportion's follows from its baseline; it is for --metric mean")
        reached = baseline + question.effect * (baseline if question.relative else 1)
        if not 0 <= reached <= 1:
            raise off("--effect", f"it takes the proportion to {reached:g}")
    elif question.sd is None or question.sd <= 0:
        raise off("--sd", "a mean needs the standard deviation of the units, over 0")
