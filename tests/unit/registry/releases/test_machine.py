"""What each command does to a release, by hand."""

import pytest

from contracts.errors import Refused, UsageError
from contracts.measurements import MetricVerdict
from contracts.routing import Flag, Overrides, Target
from contracts.rules import RulesDocument
from registry.releases.invariants import invariants
from registry.releases.machine import apply, expire
from registry.releases.values import Command, ControlState, Go, Note, Pause, Promote, Resume, Rollback
from tests.unit.registry.releases.given import (
    MINUTE,
    SMOKE,
    STEPS,
    T0,
    A,
    B,
    C,
    at_step,
    champion,
    policy,
    release,
    start,
)

PASS = MetricVerdict(name="errors", verdict="pass", reason="")
HOUR = 60 * MINUTE


def refused(state: ControlState, command: Command, now_us: int = T0) -> str:
    with pytest.raises(Refused) as error:
        apply(state, command, now_us)
    assert error.value.next_command
    return error.value.message


def promoted() -> ControlState:
    return apply(at_step(4), Promote(verdicts=(PASS,)), T0 + 11 * MINUTE)


def test_a_first_champion_needs_nothing_but_its_smoke_test() -> None:
    state = apply(ControlState(), start(A), T0)
    assert "smoke" in refused(state, Promote())
    assert "smoke" in refused(state, Promote(verdicts=(PASS,)))
    assert "no champion" in refused(state, Go())
    after = apply(state, Promote(verdicts=(SMOKE,)), T0)
    assert (after.champion, after.previous, after.warm, release(after).state) == (A, None, (), "promoted")
    assert "nothing to go back to" in refused(after, Rollback())


def test_a_first_release_cannot_be_rolled_back_but_superseded() -> None:
    state = apply(ControlState(), start(A), T0)
    assert "nothing to go back to" in refused(state, Rollback())
    after = apply(state, start(B, "r-2", supersede=True), T0)
    assert after.ended is not None
    assert (after.ended.id, after.ended.state, release(after).candidate) == ("r-1", "superseded", B)


def test_the_plan_is_walked_step_by_step_and_ends() -> None:
    state = at_step(-1)
    for step, kind in enumerate(["shadow", "canary", "canary", "canary", "canary"]):
        state = apply(state, Go(), T0 + step)
        assert (release(state).state, release(state).step, release(state).step_since_us) == (kind, step, T0 + step)
        assert state.champion == A
    assert "last step" in refused(state, Go())


def test_evidence_adds_up_over_the_ramp_and_begins_anew_at_100() -> None:
    state, since = at_step(-1), []
    for step in range(5):
        state = apply(state, Go(), T0 + step)
        since.append(release(state).since_us - T0)
    assert since == [0, 1, 1, 1, 4]


def test_an_ab_step_after_a_canary_keeps_its_evidence() -> None:
    steps = ({"kind": "canary", "weight": 5, "metrics": ("errors",)}, {"kind": "ab", "weight": 50, "metrics": ("ctr",)})
    state = apply(champion(), start(policy=policy(steps)), T0)
    state = apply(apply(state, Go(), T0 + 1), Go(step_kind="ab"), T0 + 2)
    assert (release(state).state, release(state).since_us) == ("ab", T0 + 1)


def test_a_person_may_jump_ahead_which_is_recorded() -> None:
    state = apply(at_step(0), Go(step_kind="canary", weight=25), T0)
    assert release(state).step == 2
    assert release(state).skipped == ("canary 1 %",)
    assert "skipped: canary 1 %" in release(state).reason


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (Go(step_kind="canary", weight=1), "beyond canary 1 %"),
        (Go(step_kind="canary", weight=25), "already"),
        (Go(step_kind="canary"), "beyond canary"),
        (Go(step_kind="shadow"), "beyond shadow"),
        (Go(step_kind="ab"), "no step ab"),
        (Go(step_kind="canary", weight=30), "no step canary 30 %"),
        (Resume(), "not paused"),
        (Promote(), "step canary 50 % is left"),
    ],
)
def test_what_does_not_go_forward_is_refused(command: Command, words: str) -> None:
    assert words in refused(at_step(2), command)


@pytest.mark.parametrize("weight", [0, -1, 101, 1e9])
def test_a_weight_that_is_no_percentage_is_a_usage_error(weight: float) -> None:
    with pytest.raises(UsageError, match="at most 100 %"):
        apply(at_step(0), Go(step_kind="canary", weight=weight), T0)


def test_two_releases_at_once_are_refused_and_the_first_is_named() -> None:
    assert "r-1" in refused(at_step(1), start(C, "r-2"))
    after = apply(at_step(1), start(C, "r-2", supersede=True), T0)
    assert after.ended is not None
    assert (after.ended.state, release(after).id, after.champion) == ("superseded", "r-2", A)
    assert B.bento not in after.live


def test_the_champion_and_a_repeated_start_are_refused() -> None:
    assert "champion already" in refused(champion(), start(A))
    assert "started already" in refused(at_step(1), start(supersede=True))


def test_promotion_lists_all_that_is_missing() -> None:
    state = apply(at_step(3), Note(verdicts=(PASS.model_copy(update={"verdict": "inconclusive"}),)), T0)
    message = refused(state, Promote())
    assert "step canary 100 % is left" in message
    assert "10 min of canary 50 % are left" in message
    assert "errors is inconclusive" in message


def test_promotion_without_a_verdict_is_refused() -> None:
    assert "no verdict" in refused(at_step(4), Promote(), T0 + 11 * MINUTE)


def test_promotion_keeps_the_old_champion_warm_and_a_rollback_armed() -> None:
    state = promoted()
    assert (state.champion, state.previous, release(state).state) == (B, A, "promoted")
    assert [(w.target, w.until_us) for w in state.warm] == [(A, T0 + 11 * MINUTE + 24 * HOUR)]
    back = apply(state, Rollback(reason="worse"), T0 + HOUR)
    assert (back.champion, back.previous, back.warm, release(back).state) == (A, None, (), "rolled_back")


def test_a_rollback_twice_leads_no_further_back() -> None:
    state = apply(promoted(), Rollback(), T0)
    assert "nothing is left to roll back" in refused(state, Rollback())


def test_the_rollback_of_a_promoted_release_is_disarmed_when_the_old_champion_cools() -> None:
    state = promoted()
    until = state.warm[0].until_us
    assert expire(state, until - 1) is state
    cold = expire(state, until)
    assert (cold.previous, cold.warm, cold.champion) == (None, (), B)
    assert "not kept warm" in refused(cold, Rollback())
    assert expire(cold, until + 1) is cold


def test_nothing_is_kept_warm_when_the_policy_says_so() -> None:
    state = at_step(4, policy=policy(warm_hours=0))
    after = apply(state, Promote(verdicts=(PASS,)), T0 + 11 * MINUTE)
    assert (after.previous, after.warm) == (None, ())


def test_a_forced_promotion_says_what_it_went_without() -> None:
    after = apply(at_step(0), Promote(force=True, reason="demo"), T0)
    assert after.champion == B
    assert "by force, without: step canary 1 % is left" in release(after).reason


def test_a_skipped_proof_asks_for_force() -> None:
    state = apply(at_step(2), Go(step_kind="canary", weight=100), T0)
    assert "its proof" in refused(state, Promote(verdicts=(PASS,)), T0 + 11 * MINUTE)


@pytest.mark.parametrize("step", range(-1, 5))
@pytest.mark.parametrize("paused", [False, True])
def test_a_rollback_is_armed_in_every_active_state(step: int, paused: bool) -> None:
    state = at_step(step)
    if paused:
        state = apply(state, Pause(), T0)
    after = apply(state, Rollback(reason="no"), T0)
    assert (after.champion, release(after).state, after.live) == (A, "rolled_back", (A.bento,))


def test_a_pause_stops_the_clock_of_the_step_and_nothing_else() -> None:
    state = apply(at_step(2), Pause(), T0 + 4 * MINUTE)
    assert (release(state).state, release(state).step) == ("paused", 2)
    assert "resume it first" in refused(state, Go())
    assert "resume it first" in refused(state, Promote(verdicts=(PASS,)))
    assert "paused already" in refused(state, Pause())
    after = apply(state, Resume(), T0 + 64 * MINUTE)
    assert (release(after).state, release(after).step_since_us) == ("canary", T0 + 60 * MINUTE)
    assert release(after).since_us == release(state).since_us


def test_resuming_after_the_deadline_gives_the_step_its_time_again() -> None:
    state = apply(at_step(2), Pause(), T0 + 101 * MINUTE)
    assert release(apply(state, Resume(), T0 + 200 * MINUTE)).step_since_us == T0 + 200 * MINUTE


def test_who_resumes_has_seen_what_failed_until_the_next_step() -> None:
    failed = MetricVerdict(name="hint", verdict="fail", reason="", role="signal")
    critical = MetricVerdict(name="errors", verdict="fail", reason="", critical=True)
    state = apply(at_step(2), Pause(verdicts=(failed, critical, PASS)), T0)
    after = apply(state, Resume(), T0)
    assert release(after).waived == ("hint",)
    assert release(apply(after, Go(), T0)).waived == ()


def test_a_note_changes_the_verdicts_alone() -> None:
    state = apply(at_step(2), Pause(reason="lunch"), T0)
    noted = release(apply(state, Note(reason="paused: lunch", verdicts=(PASS,)), T0 + 1))
    assert noted == release(state).model_copy(update={"verdicts": (PASS,)})


def test_a_clock_that_jumps_back_moves_nothing_back() -> None:
    state = apply(at_step(2), Go(), T0 - 10 * HOUR)
    assert (release(state).step_since_us, state.seen_us) == (T0, T0)
    assert expire(promoted(), 0).warm


def test_what_has_ended_never_moves() -> None:
    state = apply(at_step(2), Rollback(), T0)
    for command in (Go(), Promote(), Promote(force=True), Rollback(), Pause(), Resume(), Note()):
        refused(state, command)


def test_a_break_glass_order_is_obeyed_once() -> None:
    order = Rollback(adopted="glass-1")
    state = apply(at_step(2), order, T0)
    assert state.adopted == ("glass-1",)
    assert apply(state, order, T0 + 1) is state
    later = apply(state, start(C, "r-2"), T0 + 2)
    assert apply(later, order, T0 + 3) is later


def test_a_new_release_disarms_the_last_one() -> None:
    after = apply(promoted(), start(C, "r-2"), T0)
    assert (after.previous, release(after).champion) == (None, B)
    assert apply(after, Rollback(), T0).champion == B


def rules_start(state: ControlState, document: RulesDocument, **more: object) -> Command:
    assert state.champion is not None
    candidate = Target(bento=state.champion.bento, rules=document.digest)
    steps = STEPS[1:]
    return start(candidate, **{"release_kind": "rules", "rules": document, "policy": policy(steps), **more})


def test_a_change_of_rules_is_a_release_and_its_document_goes_when_nothing_names_it() -> None:
    document = RulesDocument(version="r2", fresh_floor=4)
    state = apply(champion(), rules_start(champion(), document), T0)
    assert state.rules == {document.digest: document}
    assert invariants(state) == []
    done = apply(state, Promote(force=True), T0)
    assert done.champion == Target(bento=A.bento, rules=document.digest)
    assert (done.previous, done.live) == (A, (A.bento,))
    assert apply(done, Rollback(), T0).rules == {}
    flag = Flag(id="f", on=Overrides(rules=document.digest))
    assert apply(done.model_copy(update={"flags": (flag,)}), Rollback(), T0).rules == {document.digest: document}


def test_a_change_of_rules_must_be_whole() -> None:
    document = RulesDocument(version="r2")
    with pytest.raises(UsageError, match="document"):
        apply(champion(), rules_start(champion(), document, rules=None), T0)
    assert "changes no Bento" in refused(champion(B), rules_start(champion(A), document))
    assert "need a champion" in refused(ControlState(), rules_start(champion(), document))
    assert "no rules document" in refused(champion(), start(Target(bento="x", rules="gone@1")))


def test_a_refused_command_leaves_the_state_as_it_was() -> None:
    state = at_step(2)
    before = state.model_dump_json()
    refused(state, start(C, "r-2"), T0 + HOUR)
    assert state.model_dump_json() == before


def test_the_actor_is_with_the_release() -> None:
    assert release(apply(champion(), start(), T0, "ann")).actor == "ann"
