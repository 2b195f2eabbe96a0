"""The gates: what the evidence says of the release's step, and what follows from it. Pure.

Order of what counts: a failed critical guardrail rolls back, also while paused; what else failed pauses; a step that
has passed leads to the next one; anything else waits, until the step's deadline.
"""

from contracts.measurements import MetricVerdict, Snapshot
from registry.releases.judge import Setting, judge
from registry.releases.policy import Metric, Policy, Step
from registry.releases.progress import holds_back, next_step_command, step_minutes, unproven
from registry.releases.values import ControlState, Decision, Go, Pause, Promote, Release, Rollback

# Verdicts that are no metric's: a space keeps them apart from the names of metrics.
SAMPLES, RATIO, MIX, PANEL = "least samples", "sample ratio", "rung mix", "edge cases"
GO_ON = "streamrec release resume, or streamrec release rollback"

Verdicts = tuple[MetricVerdict, ...]


def decide(state: ControlState, snapshot: Snapshot | None, now_us: int) -> Decision:
    """What to do now with the release under way; `command` None: hold.

    snapshot: of this release in this step; one of another, or none, is no evidence. Its `ready` must name candidate
    and champion for a step forward: not known is not ready.
    """
    release = state.release
    now = max(now_us, state.seen_us)
    if release is None or not release.active:
        return Decision(command=None, verdicts=(), reason="no release is under way", next="streamrec release start TAG")
    if state.champion is None:
        return Decision(command=None, verdicts=(), reason="no champion so far", next="waits for its smoke test")
    if snapshot is not None and (snapshot.release, snapshot.step) != (release.id, release.step):
        snapshot = None
    step = release.current
    verdicts = _verdicts(release, step, snapshot) if step is not None else ()

    if critical := [v for v in verdicts if v.critical and v.verdict == "fail"]:
        reason = f"critical guardrail failed: {_listed(critical)}"
        return _decision(Rollback(reason=reason, verdicts=verdicts), verdicts, reason, "rolls back now")
    if release.state == "paused":
        return _decision(None, verdicts, f"paused: {release.reason}", GO_ON)
    if release.state == "created" or step is None:
        return _first(release, _unready(release, snapshot))
    if failed := [v for v in verdicts if v.verdict == "fail" and v.role != "report" and v.name not in release.waived]:
        reason = f"failed: {_listed(failed)}"
        return _decision(Pause(reason=reason, verdicts=verdicts), verdicts, reason, GO_ON)

    minutes = step_minutes(release, now)
    waits = _waits(release, step, verdicts, minutes, _unready(release, snapshot))
    if waits and minutes >= step.deadline_minutes:
        return _overdue(step, verdicts, waits)
    if waits:
        left = step.deadline_minutes - minutes
        waiting = f"{'; '.join(waits)} ({step.on_deadline} in {left:,.0f} min)"
        return _decision(None, verdicts, f"{step.name}: holds", waiting)
    return _forward(release, step, verdicts)


def _verdicts(release: Release, step: Step, snapshot: Snapshot | None) -> Verdicts:
    """A word on each metric that the step lists, and on the rest that it asks for."""
    policy = release.policy
    if snapshot is None or snapshot.problem:
        why = snapshot.problem if snapshot is not None and snapshot.problem else "no evidence of this step yet"
        names = [policy.metric(name) for name in step.metrics]
        return tuple(_unknown(metric, why) for metric in names)
    compared = step.kind != "shadow" and step.weight < 100
    mix = _rung_mix(policy, snapshot) if compared else None
    setting = Setting(compared, step.prove, mix is not None and mix.verdict == "fail")
    found = [judge(policy.metric(name), snapshot.metrics.get(name), setting) for name in step.metrics]
    found.append(_samples(step, snapshot))
    if compared:
        found.append(_ratio(policy, snapshot))
    if mix is not None:
        # It judges nobody: it takes the word from those that compare, and holds the step.
        found.append(mix.model_copy(update={"verdict": "inconclusive"}) if mix.verdict == "fail" else mix)
    if step.panel:
        found.append(_panel(step, snapshot))
    return tuple(found)


def _unknown(metric: Metric, why: str) -> MetricVerdict:
    return MetricVerdict(
        name=metric.name, verdict="inconclusive", reason=f"cannot be told: {why}", critical=metric.critical,
        role=metric.role,
    )  # fmt: skip


def _samples(step: Step, snapshot: Snapshot) -> MetricVerdict:
    arm = snapshot.arms.get("shadow" if step.kind == "shadow" else "candidate")
    seen = arm.requests if arm else 0
    words = f"{seen:,} of {step.least_samples:,} requests"
    return MetricVerdict(name=SAMPLES, verdict="pass" if seen >= step.least_samples else "inconclusive", reason=words)


def _ratio(policy: Policy, snapshot: Snapshot) -> MetricVerdict:
    """Sample-ratio mismatch: the arms are not of the size that chance gave them, so that comparing them is void."""
    p = snapshot.srm_p
    if p is None or p != p:
        return MetricVerdict(name=RATIO, verdict="inconclusive", reason="not known whether the arms have their shares")
    if p < policy.srm_p:
        words = f"sample-ratio mismatch, p {p:.3g} below {policy.srm_p:g}: find out why before anything is concluded"
        return MetricVerdict(name=RATIO, verdict="fail", reason=words)
    return MetricVerdict(name=RATIO, verdict="pass", reason=f"p {p:.3g}")


def _rung_mix(policy: Policy, snapshot: Snapshot) -> MetricVerdict:
    p = snapshot.rung_mix_p
    if p is None or p != p:  # reported; by itself no ground to hold: most arms are answered by one rung alone
        return MetricVerdict(name=MIX, verdict="inconclusive", reason="cannot be told", role="report")
    if p < policy.rung_mix_p:
        words = f"the arms' mixes of rungs differ, p {p:.3g} below {policy.rung_mix_p:g}: comparisons do not count"
        return MetricVerdict(name=MIX, verdict="fail", reason=words)
    return MetricVerdict(name=MIX, verdict="pass", reason=f"p {p:.3g}")


def _panel(step: Step, snapshot: Snapshot) -> MetricVerdict:
    short = [
        f"{case}: {snapshot.panel.get(case, 0):,} of {least:,}"
        for case, least in step.panel.items()
        if snapshot.panel.get(case, 0) < least
    ]
    if short:
        return MetricVerdict(name=PANEL, verdict="inconclusive", reason=f"not seen often enough: {', '.join(short)}")
    return MetricVerdict(
        name=PANEL, verdict="pass", reason=", ".join(f"{c}: {snapshot.panel[c]:,}" for c in step.panel)
    )


def _unready(release: Release, snapshot: Snapshot | None) -> list[str]:
    """Who must be up for a step forward: the candidate, and the champion, to whom a rollback goes."""
    ready = snapshot.ready if snapshot is not None else {}
    targets = dict.fromkeys(t.bento for t in (release.candidate, release.champion) if t is not None)
    return [f"{bento} is not ready" for bento in targets if not ready.get(bento)]


def _first(release: Release, unready: list[str]) -> Decision:
    step = release.policy.steps[0]
    if unready:
        return _decision(None, (), "created: holds", "; ".join(unready))
    if release.policy.advance == "manual":
        return _decision(None, (), "ready, and the policy advances by hand", next_step_command(release))
    reason = f"{release.candidate.bento} is ready"
    return _decision(Go(reason=f"{reason}: {step.name}"), (), reason, f"goes to {step.name}")


def _waits(release: Release, step: Step, verdicts: Verdicts, minutes: float, unready: list[str]) -> list[str]:
    """Everything that the step still waits for, for people."""
    waits = []
    if minutes < step.least_minutes:
        waits.append(f"{step.least_minutes - minutes:,.3g} min of its least time are left")
    waits += [
        f"{v.name}: {v.reason}"
        for v in verdicts
        if holds_back(v) and not (v.role == "signal" and v.name in release.waived)
    ]
    if not verdicts:
        waits.append("no evidence")
    if release.step + 1 == len(release.policy.steps):
        waits += [
            f"{name} was skipped, and its proof with it: streamrec release promote --force, or rollback"
            for name in unproven(release)
        ]
    return waits + unready


def _overdue(step: Step, verdicts: Verdicts, waits: list[str]) -> Decision:
    reason = f"{step.name} did not pass within {step.deadline_minutes:g} min: {'; '.join(waits)}"
    command: Pause | Rollback
    if step.on_deadline == "rollback":
        command = Rollback(reason=reason, verdicts=verdicts)
        return _decision(command, verdicts, reason, "rolls back now")
    command = Pause(reason=reason, verdicts=verdicts)
    return _decision(command, verdicts, reason, GO_ON)


def _forward(release: Release, step: Step, verdicts: Verdicts) -> Decision:
    passed = f"{step.name} has passed"
    last = release.step + 1 == len(release.policy.steps)
    if release.policy.advance == "manual":
        return _decision(None, verdicts, f"{passed}; the policy advances by hand", next_step_command(release))
    if last:
        return _decision(Promote(reason=passed, verdicts=verdicts), verdicts, passed, "is promoted now")
    to = release.policy.steps[release.step + 1].name
    return _decision(Go(reason=f"{passed}: {to}", verdicts=verdicts), verdicts, passed, f"goes to {to}")


def _listed(verdicts: list[MetricVerdict]) -> str:
    return "; ".join(f"{v.name} ({v.reason})" for v in verdicts)


def _decision(command: Go | Promote | Rollback | Pause | None, verdicts: Verdicts, reason: str, next_: str) -> Decision:
    return Decision(command=command, verdicts=verdicts, reason=reason, next=next_)
