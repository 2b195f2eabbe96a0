"""Intervals that hold at all looks at once, so that one may look at any time and stop at any of them.

Large counts: asymptotic confidence sequences (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2021, arXiv:2103.06476),
tightest at `tuning_n` units of both arms. Few events: exact bounds of a Bernoulli rate by Robbins' beta mixture (1970).
Pure Python: a controller asks this for every metric and slice at every look.
"""

import math

from monitoring.statistics.estimates import CannotTell, Estimate
from monitoring.statistics.samples import Mean, Proportion, Ratio, Sample

TUNING_N = 5000
# Fewer events than this in an arm are too few for the normal law. Kish's (Σx)² / Σx² counts a heavy unit as one event.
# Simulated, 100 looks at α 0.05, splits of 10:90, counts of a heavy tail: 15–20 % false positives from the first event
# on, 6–9 % from 10, up to 6 % from 20, 3 % from 30.
LEAST_EVENTS = 30
PRIOR = 0.5  # Jeffreys' beta


def rho_squared(alpha: float, tuning_n: int = TUNING_N) -> float:
    """The mixture's precision that is tightest at `tuning_n` (their equation of Appendix B)."""
    two = -2 * math.log(alpha)
    return (two + math.log(two + 1)) / tuning_n


def radius(n: float, alpha: float, rho2: float) -> float:
    """Half width in standard errors after n units."""
    t = n * rho2
    return math.sqrt((t + 1) / t * 2 * math.log(math.sqrt(t + 1) / alpha))


def p_value(z: float, n: float, rho2: float) -> float:
    """The α at which the interval touches 0 with the mixture as it is: one over the mixture's e-value."""
    t = n * rho2
    return min(1.0, math.exp(0.5 * math.log(t + 1) - z * z / 2 * t / (t + 1)))


def compare(
    control: Sample,
    treatment: Sample,
    *,
    alpha: float = 0.05,
    tuning_n: int = TUNING_N,
    tuning_alpha: float | None = None,
) -> Estimate | CannotTell:
    """treatment − control. tuning_alpha: the α that the mixture is tuned for, when several α share one mixture."""
    _check(alpha, tuning_n)
    if type(control) is not type(treatment):
        return CannotTell("the arms hold different kinds of sample")
    for name, arm in (("control", control), ("treatment", treatment)):
        if arm.n < 2:
            return CannotTell(f"{arm.n} units in the {name} arm")
        if not math.isfinite(arm.value):
            return CannotTell(f"the {name} arm has no value")
    if min(events(control), events(treatment)) < LEAST_EVENTS:
        return _on_off(control, treatment, alpha)
    variance = control.variance + treatment.variance
    if not math.isfinite(variance) or variance <= 0:
        return CannotTell("the arms do not vary")
    n = control.n + treatment.n
    rho2 = rho_squared(tuning_alpha or alpha, tuning_n)
    effect, se = treatment.value - control.value, math.sqrt(variance)
    half = se * radius(n, alpha, rho2)
    convention = f"always valid (asymptotic confidence sequence, tuned at {tuning_n:,} units), two-sided, absolute"
    if isinstance(control, Ratio):
        convention += ", delta method over units"
    return Estimate(effect, (effect - half, effect + half), p_value(effect / se, n, rho2), convention)


def estimate(
    sample: Sample, *, alpha: float = 0.05, tuning_n: int = TUNING_N, rate: bool = False
) -> Estimate | CannotTell:
    """One arm's value, for absolute limits. rate: y counts trials and x those of them that count, 0 ≤ x ≤ y."""
    _check(alpha, tuning_n)
    if not sample.n or not math.isfinite(sample.value):
        return CannotTell("no units")
    if isinstance(sample, Proportion):
        ci = rate_bounds(sample.successes, sample.n, alpha)
        return Estimate(sample.value, ci, None, "always valid, exact for a Bernoulli rate (beta mixture)")
    if isinstance(sample, Ratio) and rate:
        if sample.sum_x < 0 or sample.sum_x > sample.sum_y:
            return CannotTell("a rate with more events than trials")
        others = Ratio(
            sample.n,
            sample.sum_y - sample.sum_x,
            sample.sum_y,
            sample.sum_yy - 2 * sample.sum_xy + sample.sum_xx,
            sample.sum_yy,
            sample.sum_yy - sample.sum_xy,
        )
        if min(events(sample), events(others)) < LEAST_EVENTS:
            trials = sample.sum_y**2 / sample.sum_yy
            ci = rate_bounds(sample.value * trials, trials, alpha)
            return Estimate(
                sample.value, ci, None, f"always valid, exact at {trials:,.0f} effective trials (Kish; beta mixture)"
            )
    elif events(sample) < LEAST_EVENTS:
        return CannotTell(f"fewer than {LEAST_EVENTS} events")
    if not math.isfinite(sample.variance) or sample.variance <= 0:
        return CannotTell("the units do not vary")
    half = math.sqrt(sample.variance) * radius(sample.n, alpha, rho_squared(alpha, tuning_n))
    convention = f"always valid (asymptotic confidence sequence, tuned at {tuning_n:,} units), two-sided"
    return Estimate(sample.value, (sample.value - half, sample.value + half), None, convention)


def events(sample: Sample) -> float:
    """How many events the normal law may count on; a mean of its own has units for events."""
    if isinstance(sample, Mean):
        return sample.n
    if isinstance(sample, Proportion):
        return min(sample.successes, sample.n - sample.successes)
    return sample.sum_x**2 / sample.sum_xx if sample.sum_xx > 0 else 0.0


def rate_bounds(successes: float, n: float, alpha: float) -> tuple[float, float]:
    """Exact always-valid bounds of a Bernoulli rate after `n` independent trials."""
    _check(alpha, 1)
    if not (math.isfinite(n) and math.isfinite(successes) and 0 <= successes <= n):
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return (0.0, 1.0)
    target = _log_mixture(successes, n) + math.log(alpha)
    misses = n - successes
    if not successes:
        return (0.0, -math.expm1(target / n))
    if not misses:
        return (math.exp(target / n), 1.0)
    step = 3 * math.sqrt(1 / successes + 1 / misses)
    return (_root(successes, n, target, -step), _root(successes, n, target, step))


def log_e_value(successes: float, n: float, rate: float) -> float:
    """ln of the beta mixture's likelihood over that of `rate`: a test martingale when `rate` is true."""
    return _log_mixture(successes, n) - _log_likelihood(successes, n, rate)


def _log_mixture(s: float, n: float) -> float:
    whole = math.lgamma(PRIOR + s) + math.lgamma(PRIOR + n - s) - math.lgamma(2 * PRIOR + n)
    return whole - (2 * math.lgamma(PRIOR) - math.lgamma(2 * PRIOR))


def _log_likelihood(s: float, n: float, rate: float) -> float:
    hit = s * math.log(rate) if s and rate > 0 else (-math.inf if s else 0.0)
    miss = (n - s) * math.log1p(-rate) if n - s and rate < 1 else (-math.inf if n - s else 0.0)
    return hit + miss


def _root(s: float, n: float, target: float, step: float) -> float:
    """The rate, `step` logits or so from s / n, whose log likelihood is `target`.

    By Newton in the logit, where the log likelihood is concave: each step ends outside the interval and none crosses
    back, so that an early end is a wider interval.
    """
    logit = math.log(s / (n - s)) + step
    for _ in range(60):
        rate = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
        log_likelihood = s * logit - n * (
            logit + math.log1p(math.exp(-logit)) if logit > 0 else math.log1p(math.exp(logit))
        )
        move = (target - log_likelihood) / (s - n * rate)
        logit += move
        if abs(move) < 1e-9:
            break
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def _on_off(control: Sample, treatment: Sample, alpha: float) -> Estimate | CannotTell:
    """Exact bounds of each arm at α / 2 hold together at α, so their difference does: conservative."""
    arms = []
    for arm in (control, treatment):
        if isinstance(arm, Proportion):
            arms.append((arm.successes, arm.n))
        elif isinstance(arm, Ratio) and arm.on is not None:
            arms.append((arm.on, arm.n))
        else:
            what = "units" if isinstance(arm, Mean) else "events"
            return CannotTell(f"under {LEAST_EVENTS} {what} in an arm are too few for the normal law")
    (s0, n0), (s1, n1) = arms
    low0, high0 = rate_bounds(s0, n0, alpha / 2)
    low1, high1 = rate_bounds(s1, n1, alpha / 2)
    convention = "always valid, on-off: share of units with an event, exact bounds of each arm at α / 2 (beta mixture)"
    effect = s1 / n1 - s0 / n0
    return Estimate(effect, (low1 - high0, high1 - low0), _on_off_p(s0, n0, s1, n1), convention, on_off=True)


def _on_off_p(s0: int, n0: int, s1: int, n1: int) -> float:
    """Twice the p-value of the rate that both arms find equally unlikely: the α at which their bounds touch."""
    if s0 / n0 > s1 / n1:
        s0, n0, s1, n1 = s1, n1, s0, n0
    low, high = s0 / n0, s1 / n1
    if low == high:
        return 1.0
    apart = _log_mixture(s0, n0) - _log_mixture(s1, n1)
    hits, misses = s0 - s1, n0 - s0 - n1 + s1
    for _ in range(50):
        middle = (low + high) / 2
        if apart < hits * math.log(middle) + misses * math.log1p(-middle):
            low = middle
        else:
            high = middle
    e = min(log_e_value(s0, n0, high), log_e_value(s1, n1, low))
    return min(1.0, 2 * math.exp(-e))


def _check(alpha: float, tuning_n: int) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}")
    if tuning_n < 1:
        raise ValueError(f"tuning_n is {tuning_n}")
