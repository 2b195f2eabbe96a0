"""What the gates decide, case by case. Intervals are written by hand."""

import pytest

from contracts.measurements import ArmCount, Measured, Snapshot
from registry.releases.gates import decide
from registry.releases.machine import apply
from registry.releases.values import ControlState, Decision, Go, Pause, Promote, Resume, Rollback
from tests.unit.registry.releases.given import MINUTE, T0, A, B, at_step, champion, evidence, policy, release, start

LATER = T0 + 11 * MINUTE
OVERDUE = T0 + 101 * MINUTE


def kind(decision: Decision) -> str:
    return decision.command.kind if decision.command else "hold"


def verdict(decision: Decision, name: str) -> str:
    return next(v.verdict for v in decision.verdicts if v.name == name)


def compared(name: str, lo: float, hi: float, **more: object) -> dict[str, Measured]:
    figures = {"n": 500, "n_control": 500, "effect": (lo + hi) / 2, "ci": (lo, hi), "control": 0.1, **more}
    return {name: Measured(name=name, **figures)}


def absolute(name: str, value: float, lo: float, hi: float, **more: object) -> dict[str, Measured]:
    return {name: Measured(name=name, **{"n": 500, "value": value, "value_ci": (lo, hi), **more})}


def test_each_step_that_passes_leads_to_the_next_and_the_last_to_promotion() -> None:
    state, now = apply(champion(), start(), T0), T0
    seen = []
    for _ in range(6):
        decision = decide(state, evidence(state), now)
        assert decision.command is not None
        state = apply(state, decision.command, now)
        now += 11 * MINUTE
        seen.append(kind(decision))
    assert seen == ["go", "go", "go", "go", "go", "promote"]
    assert state.champion == B


@pytest.mark.parametrize("step", range(5))
def test_silence_is_never_a_pass(step: int) -> None:
    state = at_step(step)
    nothing = Snapshot(release="r-1", step=step, taken_us=LATER, since_us=T0, ready={A.bento: True, B.bento: True})
    empty = evidence(state, metrics={m.name: Measured(name=m.name) for m in release(state).policy.metrics})
    for silent in (None, nothing, evidence(state, problem="log unreadable"), empty, evidence(state, step=step - 1)):
        decision = decide(state, silent, LATER)
        assert kind(decision) == "hold"
        assert decision.next
        assert "pass" not in {v.verdict for v in decision.verdicts if v.name in ("gate", "errors", "ctr")}
        assert kind(decide(state, silent, OVERDUE)) == "pause"


@pytest.mark.parametrize("step", range(1, 5))
@pytest.mark.parametrize("paused", [False, True])
def test_a_failed_critical_guardrail_rolls_back_in_every_state_and_at_any_n(step: int, paused: bool) -> None:
    state = at_step(step)
    if paused:
        state = apply(state, Pause(), T0)
    few = {"candidate": ArmCount(units=3, requests=3)}
    found = evidence(state, metrics=absolute("errors", 0.5, 0.011, 0.9, n=3), arms=few, srm_p=0.0, ready={})
    decision = decide(state, found, T0)
    assert kind(decision) == "rollback"
    assert "n 3" in decision.reason
    assert apply(state, decision.command or Pause(), T0).champion == A


def test_a_paused_release_without_a_failure_waits_for_a_person() -> None:
    state = apply(at_step(2), Pause(), T0)
    assert kind(decide(state, evidence(state), OVERDUE)) == "hold"
    assert "resume" in decide(state, evidence(state), OVERDUE).next


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (absolute("errors", 0.0, 0.0, 0.5), "pass"),  # a wide interval: the step asks for least samples
        (absolute("errors", 0.01, 0.005, 0.02), "pass"),  # at the limit
        (absolute("errors", 0.011, 0.005, 0.02), "inconclusive"),
        (absolute("errors", 0.02, 0.01, 0.03), "inconclusive"),  # the interval touches it
        (absolute("errors", 0.02, 0.0101, 0.03), "fail"),
        (absolute("errors", 0.02, 0.0101, 0.03, problem="torn"), "inconclusive"),
        (absolute("errors", float("nan"), 0.0, 0.1), "inconclusive"),
        (compared("ctr", -0.02, 0.001), "pass"),  # no harm beyond doubt
        (compared("ctr", -0.03, -0.001), "fail"),
        (compared("ctr", -0.009, -0.001), "pass"),  # harm, wholly within 10 % of 0.1
        (compared("ctr", -0.009, -0.001, control=None), "fail"),
        (compared("ctr", -0.009, -0.001, convention="on-off: share of units"), "fail"),
        (compared("ctr", 0.001, 0.02), "pass"),
        (compared("ctr", float("-inf"), float("inf"), effect=0.0), "inconclusive"),
        (compared("ctr", -0.03, -0.001, n_control=0), "inconclusive"),
        (compared("hint", 0.021, 0.03), "fail"),  # lower is better
        (compared("hint", 0.001, 0.03), "fail"),
        (compared("hint", 0.001, 0.019), "pass"),
        (compared("hint", -0.001, 0.03), "pass"),
    ],
)
def test_verdicts_of_an_early_step(figures: dict[str, Measured], expected: str) -> None:
    state = at_step(1)
    assert verdict(decide(state, evidence(state, metrics=figures), LATER), next(iter(figures))) == expected


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (compared("ctr", -0.0099, 0.01), "pass"),
        (compared("ctr", -0.0101, 0.01), "inconclusive"),
        (compared("ctr", -0.02, 0.01), "inconclusive"),
        (compared("ctr", -0.02, -0.01), "fail"),
        (compared("ctr", 0.0, 0.001, control=None), "inconclusive"),
        (compared("ctr", 0.0, 0.001, convention="on-off"), "inconclusive"),
    ],
)
def test_at_50_not_being_worse_than_by_the_margin_must_be_proven(figures: dict[str, Measured], expected: str) -> None:
    state = at_step(3)
    decision = decide(state, evidence(state, metrics=figures), LATER)
    assert verdict(decision, "ctr") == expected
    assert kind(decision) == {"pass": "go", "fail": "rollback", "inconclusive": "hold"}[expected]


def test_at_100_without_a_control_only_limits_are_judged() -> None:
    state = at_step(4)
    decision = decide(state, evidence(state, metrics={"ctr": Measured(name="ctr", n=9, value=0.1)}, srm_p=None), LATER)
    ctr = next(v for v in decision.verdicts if v.name == "ctr")
    assert (kind(decision), ctr.verdict, ctr.role) == ("promote", "inconclusive", "report")
    bad = evidence(state, metrics=absolute("errors", 0.05, 0.02, 0.1))
    assert kind(decide(state, bad, LATER)) == "rollback"


def test_a_soft_guardrail_or_a_signal_that_fails_pauses_and_does_so_once() -> None:
    for name, lo, hi in (("soft", -0.05, -0.02), ("hint", 0.03, 0.05)):
        state = at_step(2)
        found = evidence(state, metrics=compared(name, lo, hi))
        decision = decide(state, found, LATER)
        assert kind(decision) == "pause"
        resumed = apply(apply(state, decision.command or Pause(), LATER), Resume(), LATER)
        # A signal has been seen and goes on; a guardrail is still short of its pass.
        assert kind(decide(resumed, found, LATER)) == ("go" if name == "hint" else "hold")


def test_a_signal_that_cannot_be_told_does_not_hold_the_step() -> None:
    state = at_step(1)
    assert kind(decide(state, evidence(state, metrics={"hint": Measured(name="hint", problem="?")}), LATER)) == "go"


def test_a_sample_ratio_mismatch_pauses_and_never_rolls_back() -> None:
    state = at_step(2)
    decision = decide(state, evidence(state, srm_p=0.0009), LATER)
    assert kind(decision) == "pause"
    assert "sample-ratio mismatch" in decision.reason
    resumed = apply(apply(state, decision.command or Pause(), LATER), Resume(), LATER)
    assert kind(decide(resumed, evidence(state, srm_p=0.0009), LATER)) == "hold"
    assert kind(decide(state, evidence(state, srm_p=0.001), LATER)) == "go"
    assert kind(decide(state, evidence(state, srm_p=None), LATER)) == "hold"


def test_a_sample_ratio_mismatch_does_not_stop_a_rollback() -> None:
    state = at_step(2)
    found = evidence(state, srm_p=0.0, metrics=compared("ctr", -0.05, -0.02))
    assert kind(decide(state, found, LATER)) == "rollback"


def test_where_the_rungs_differ_comparisons_do_not_count_but_a_critical_failure_does() -> None:
    state = at_step(2)
    decision = decide(state, evidence(state, rung_mix_p=1e-6), LATER)
    assert kind(decision) == "hold"
    assert verdict(decision, "ctr") == "inconclusive"
    assert verdict(decision, "errors") == "pass"
    soft = evidence(state, rung_mix_p=1e-6, metrics=compared("soft", -0.05, -0.02))
    assert verdict(decide(state, soft, LATER), "soft") == "inconclusive"
    mix_itself = evidence(state, rung_mix_p=1e-6, metrics=compared("hint", 0.03, 0.05))
    assert kind(decide(state, mix_itself, LATER)) == "pause"
    harm = evidence(state, rung_mix_p=1e-6, metrics=compared("ctr", -0.05, -0.02))
    assert kind(decide(state, harm, LATER)) == "rollback"


@pytest.mark.parametrize(("n", "expected"), [(99, "hold"), (100, "rollback")])
def test_one_slice_that_fails_is_a_failure_from_its_least_n_on(n: int, expected: str) -> None:
    state = at_step(1)
    part = Measured(name="errors", n=n, value=0.5, value_ci=(0.3, 0.7))
    whole = absolute("errors", 0.001, 0.0, 0.005, slices={"country=DE": part})
    decision = decide(state, evidence(state, metrics=whole), T0)
    assert kind(decision) == expected
    assert ("country=DE" in decision.reason) == (expected == "rollback")


def test_time_samples_and_edge_cases_are_waited_for() -> None:
    state = at_step(0)
    assert "least time" in decide(state, evidence(state), T0 + 9 * MINUTE).next
    few = evidence(state, arms={"shadow": ArmCount(units=9, requests=999)})
    assert "999 of 1,000" in decide(state, few, LATER).next
    assert "new_user: 4 of 5" in decide(state, evidence(state, panel={"new_user": 4}), LATER).next
    assert kind(decide(state, evidence(state), LATER)) == "go"


def test_the_shadow_gate_rolls_back_what_fails_there() -> None:
    state = at_step(0)
    assert kind(decide(state, evidence(state, metrics=absolute("gate", 0.01, 0.002, 0.02)), T0)) == "rollback"


def test_an_unready_bento_gets_no_wider_step() -> None:
    for step in range(-1, 5):
        state = at_step(step)
        for ready in ({}, {A.bento: True}, {B.bento: True}, {A.bento: True, B.bento: False}):
            decision = decide(state, evidence(state, ready=ready), LATER)
            assert kind(decision) == "hold"
            assert "not ready" in decision.next


def test_past_the_deadline_the_policy_decides() -> None:
    steps = ({"kind": "canary", "weight": 1, "metrics": ("errors",), "on_deadline": "rollback"},)
    state = at_step(0, policy=policy(steps))
    assert kind(decide(state, None, T0 + 99 * MINUTE)) == "hold"
    assert kind(decide(state, None, T0 + 100 * MINUTE)) == "rollback"
    assert kind(decide(state, evidence(state), OVERDUE)) == "promote"


def test_a_clock_that_jumps_back_makes_no_step_shorter() -> None:
    state = at_step(1)
    assert kind(decide(state, evidence(state), T0 - 1000 * MINUTE)) == "hold"
    early = apply(champion(), start(), T0 - 60 * MINUTE)
    early = apply(apply(early, Go(), T0 - 60 * MINUTE), Go(), T0 - 60 * MINUTE)
    assert release(early).step_since_us == T0
    assert kind(decide(early, evidence(early), T0 + 9 * MINUTE)) == "hold"


def test_a_policy_by_hand_holds_and_says_the_command() -> None:
    by_hand = policy(advance="manual")
    for step, words in ((-1, "release shadow"), (0, "canary --weight 1"), (3, "canary --weight 100"), (4, "promote")):
        state = at_step(step, policy=by_hand)
        decision = decide(state, evidence(state), LATER)
        assert kind(decision) == "hold"
        assert words in decision.next


def test_a_skipped_proof_is_not_promoted_past() -> None:
    state = apply(at_step(2), Go(step_kind="canary", weight=100), T0)
    decision = decide(state, evidence(state), LATER)
    assert kind(decision) == "hold"
    assert "--force" in decision.next


def test_without_a_release_or_a_champion_there_is_nothing_to_decide() -> None:
    for state in (ControlState(), champion(), apply(ControlState(), start(A), T0)):
        assert decide(state, None, T0).command is None


def test_each_verdict_shows_its_figures() -> None:
    state = at_step(1)
    reasons = {v.name: v.reason for v in decide(state, evidence(state), LATER).verdicts}
    assert reasons["errors"] == "value 0 [0, 0.0005], n 5,000, limit at most 0.01"
    assert reasons["ctr"] == "no harm shown: effect 0 [-0.005, 0.005], n 5,000 and 5,000, margin 0.01"


def test_what_the_gates_promote_the_machine_accepts() -> None:
    state = at_step(4)
    decision = decide(state, evidence(state), LATER)
    assert isinstance(decision.command, Promote)
    assert not isinstance(decision.command, Rollback)
    assert apply(state, decision.command, LATER).champion == B
