"""One look, at a size fixed beforehand: textbook intervals. Looked at often, they raise false alarms.

By SciPy and statsmodels, loaded when asked.
"""

import math

from monitoring.statistics import score
from monitoring.statistics.estimates import CannotTell, Estimate
from monitoring.statistics.samples import Mean, Proportion, Sample

LEAST_CELL = 10  # fewer successes or failures in an arm than this: the score interval, not Wald's


def compare(control: Sample, treatment: Sample, *, alpha: float = 0.05) -> Estimate | CannotTell:
    """treatment − control. Means: Welch. Proportions: Wald with unpooled variance, or score. Ratios: delta method."""
    problem = _problem(control, treatment, alpha)
    if problem:
        return CannotTell(problem)
    if isinstance(control, Proportion) and isinstance(treatment, Proportion):
        return _proportions(control, treatment, alpha)
    if control.variance + treatment.variance <= 0:
        return CannotTell("the arms do not vary")
    effect = treatment.value - control.value
    se = math.sqrt(control.variance + treatment.variance)
    if isinstance(control, Mean) and isinstance(treatment, Mean):
        from scipy.stats import t, ttest_ind_from_stats

        p = ttest_ind_from_stats(
            treatment.mean, treatment.sd, treatment.n, control.mean, control.sd, control.n, equal_var=False
        ).pvalue
        df = se**4 / (control.variance**2 / (control.n - 1) + treatment.variance**2 / (treatment.n - 1))
        half = se * float(t.isf(alpha / 2, df))
        return Estimate(
            effect, (effect - half, effect + half), float(p), "fixed horizon, Welch's t, two-sided, absolute"
        )
    from scipy.stats import norm

    half = se * float(norm.isf(alpha / 2))
    convention = "fixed horizon, normal with delta-method variance over units, two-sided, absolute"
    return Estimate(effect, (effect - half, effect + half), float(2 * norm.sf(abs(effect) / se)), convention)


def relative(control: Sample, treatment: Sample, *, alpha: float = 0.05) -> Estimate | CannotTell:
    """treatment / control − 1, with an interval that is symmetric in the logarithm of the ratio."""
    problem = _problem(control, treatment, alpha)
    if problem:
        return CannotTell(problem)
    if control.value <= 0 or treatment.value <= 0:
        return CannotTell("a relative effect needs values over 0 in both arms")
    variance = control.variance / control.value**2 + treatment.variance / treatment.value**2
    if variance <= 0:
        return CannotTell("the arms do not vary")
    from scipy.stats import norm

    log_ratio, se = math.log(treatment.value / control.value), math.sqrt(variance)
    half = se * float(norm.isf(alpha / 2))
    return Estimate(
        math.expm1(log_ratio),
        (math.expm1(log_ratio - half), math.expm1(log_ratio + half)),
        float(2 * norm.sf(abs(log_ratio) / se)),
        "fixed horizon, normal on the logarithm of the ratio, two-sided, relative",
    )


def _proportions(control: Proportion, treatment: Proportion, alpha: float) -> Estimate | CannotTell:
    if control.variance + treatment.variance <= 0 and control.value == treatment.value:
        return CannotTell("the arms do not vary")
    effect = treatment.value - control.value
    if min(c for a in (control, treatment) for c in (a.successes, a.n - a.successes)) < LEAST_CELL:
        low, high, p = score.interval(control, treatment, alpha)
        variance = "score (Miettinen & Nurminen)"
    else:
        from statsmodels.stats.proportion import confint_proportions_2indep, test_proportions_2indep

        counts = (treatment.successes, treatment.n, control.successes, control.n)
        low, high = map(float, confint_proportions_2indep(*counts, method="wald", compare="diff", alpha=alpha))
        p = float(test_proportions_2indep(*counts, method="wald", compare="diff").pvalue)
        variance = "Wald, unpooled variance"
    return Estimate(effect, (low, high), p, f"fixed horizon, two proportions, {variance}, two-sided, absolute")


def _problem(control: Sample, treatment: Sample, alpha: float) -> str | None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}")
    if type(control) is not type(treatment):
        return "the arms hold different kinds of sample"
    for name, arm in (("control", control), ("treatment", treatment)):
        if arm.n < 2:
            return f"{arm.n} units in the {name} arm"
        if not (math.isfinite(arm.value) and math.isfinite(arm.variance)):
            return f"the {name} arm has no value"
    return None
