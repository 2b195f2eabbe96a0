"""How far a release is in its plan, and what it lacks. Pure; the machine refuses by it, and the gates wait by it."""

from contracts.measurements import MetricVerdict
from registry.releases.values import Release

MINUTE_US = 60_000_000


def step_minutes(release: Release, now_us: int) -> float:
    """Minutes that the release has run in its step, pauses left out; never below 0."""
    end_us = release.paused_us if release.state == "paused" and release.paused_us is not None else now_us
    return max(0, end_us - release.step_since_us) / MINUTE_US


def holds_back(verdict: MetricVerdict) -> bool:
    """Does it stop the next step? Guardrails and the primary metric must pass; a signal only must not fail."""
    if verdict.role == "report":
        return False
    return verdict.verdict != "pass" if verdict.role in ("guardrail", "primary") else verdict.verdict == "fail"


def unproven(release: Release) -> list[str]:
    """Steps that a person jumped over and that would have demanded a proof."""
    return [s.name for s in release.policy.steps if s.prove and s.name in release.skipped]


def missing_for_promotion(release: Release, verdicts: tuple[MetricVerdict, ...], now_us: int) -> list[str]:
    """Everything that stands between the release and its promotion, for people."""
    steps = release.policy.steps
    found = [f"step {s.name} is left" for s in steps[release.step + 1 :]]
    found += [f"step {name} was skipped, and its proof with it" for name in unproven(release)]
    step = release.current
    if step is not None:
        left = step.least_minutes - step_minutes(release, now_us)
        found += [f"{left:.3g} min of {step.name} are left"] if left > 0 else []
        waived = {v.name for v in verdicts if v.role == "signal" and v.name in release.waived}
        found += [f"{v.name} is {v.verdict}: {v.reason}" for v in verdicts if holds_back(v) and v.name not in waived]
        found += [] if verdicts else [f"no verdict on {step.name} so far"]
    return found


def next_step_command(release: Release) -> str:
    """What a person types to take the next step of the plan."""
    after = release.step + 1
    if after >= len(release.policy.steps):
        return "streamrec release promote"
    step = release.policy.steps[after]
    return f"streamrec release {step.kind}" + ("" if step.kind == "shadow" else f" --weight {step.weight:g}")
