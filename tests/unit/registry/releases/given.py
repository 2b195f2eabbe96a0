"""Small states and evidence that these tests begin with."""

from pathlib import Path
from typing import Any

from contracts.measurements import ArmCount, Measured, MetricVerdict, Snapshot
from contracts.routing import Target
from registry.releases.machine import apply
from registry.releases.policy import Policy
from registry.releases.values import ControlState, Go, PolicyText, Promote, Release, Start

MINUTE = 60_000_000
T0 = 1_700_000_000_000_000
A, B, C = (Target(bento=f"streamrec:{name}") for name in "abc")
TEXT = PolicyText(name="p", version="1", sha256="0" * 64, text="")
SMOKE = MetricVerdict(name="smoke", verdict="pass", reason="answers")
NOWHERE = Path("/nonexistent")

METRICS = (
    {"name": "gate", "kind": "error_rate", "direction": "lower", "critical": True, "limit": 0.001},
    {"name": "errors", "kind": "error_rate", "direction": "lower", "critical": True, "limit": 0.01},
    {"name": "ctr", "kind": "ctr", "direction": "higher", "critical": True, "margin": 0.1, "relative": True},
    {"name": "soft", "kind": "ctr", "direction": "higher", "margin": 0.01},
    {"name": "hint", "kind": "degradation", "direction": "lower", "role": "signal", "margin": 0.02},
    {"name": "told", "kind": "overlap", "direction": "higher", "role": "report"},
)
RAMP = ("errors", "ctr", "hint")
STEPS: tuple[dict[str, Any], ...] = (
    {"kind": "shadow", "weight": 100, "metrics": ("gate", "told"), "panel": {"new_user": 5}},
    {"kind": "canary", "weight": 1, "metrics": RAMP},
    {"kind": "canary", "weight": 25, "metrics": (*RAMP, "soft")},
    {"kind": "canary", "weight": 50, "metrics": RAMP, "prove": True},
    {"kind": "canary", "weight": 100, "metrics": ("errors", "ctr")},
)


def policy(steps: tuple[dict[str, Any], ...] = STEPS, **more: Any) -> Policy:
    whole = [{"least_minutes": 10, "least_samples": 1000, "deadline_minutes": 100, **step} for step in steps]
    return Policy.model_validate({"name": "p", "version": "1", "metrics": METRICS, "steps": whole, **more})


def start(candidate: Target = B, id_: str = "r-1", **more: Any) -> Start:
    return Start(id=id_, candidate=candidate, policy_text=TEXT, **{"policy": policy(), **more})


def champion(target: Target = A) -> ControlState:
    """The state after a first champion's smoke test."""
    state = apply(ControlState(), start(target, "r-0"), T0)
    return apply(state, Promote(verdicts=(SMOKE,)), T0)


def at_step(step: int, **more: Any) -> ControlState:
    """B against A, in this step since T0."""
    state = apply(champion(), start(**more), T0)
    for _ in range(step + 1):
        state = apply(state, Go(), T0)
    return state


def release(state: ControlState) -> Release:
    assert state.release is not None
    return state.release


def well(name: str) -> Measured:
    """Figures that pass everywhere: no errors, the control's click rate, an interval within each margin."""
    return Measured(
        name=name, n=5000, n_control=5000, samples=9000, value=0.0, value_ci=(0.0, 0.0005), control=0.1,
        effect=0.0, ci=(-0.005, 0.005), p=1.0,
    )  # fmt: skip


def evidence(state: ControlState, **more: Any) -> Snapshot:
    """All is well; `metrics` replaces single ones."""
    now = release(state)
    metrics = {m.name: well(m.name) for m in now.policy.metrics} | more.pop("metrics", {})
    arm = ArmCount(units=5000, requests=20_000, rungs={"full": 20_000})
    return Snapshot(
        **{
            "release": now.id,
            "step": now.step,
            "taken_us": T0,
            "since_us": now.since_us,
            "arms": {"candidate": arm, "control": arm, "shadow": arm},
            "metrics": metrics,
            "srm_p": 0.5,
            "rung_mix_p": 0.5,
            "panel": {"new_user": 5},
            "ready": {A.bento: True, B.bento: True},
            **more,
        }
    )
