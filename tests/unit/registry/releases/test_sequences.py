"""Any sequence of commands, evidence, crashes, flapping and time keeps what a release promises.

The store is a single row moved by compare-and-swap. A client may work on a state that it read long ago; a reply may be
lost, and the command comes again.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from contracts.errors import Refused
from contracts.measurements import Measured, MetricVerdict
from contracts.routing import Target, Upstream
from contracts.rules import RulesDocument
from registry.releases.gates import decide
from registry.releases.invariants import invariants
from registry.releases.machine import apply, expire
from registry.releases.routing import compile_table
from registry.releases.values import Command, ControlState, Go, Note, Pause, Promote, Release, Resume, Rollback, Start
from tests.unit.registry.releases.given import (
    MINUTE,
    SMOKE,
    STEPS,
    T0,
    A,
    B,
    C,
    champion,
    evidence,
    policy,
    start,
)

TARGETS = (A, B, C)
PLANS = (policy(), policy(advance="manual"), policy(warm_hours=0), policy(STEPS[1:]))
FAIL = MetricVerdict(name="hint", verdict="fail", reason="", role="signal")


def weight(release: Release) -> float:
    """Of the users, on the candidate."""
    step = release.current
    return step.weight if step is not None and step.kind != "shadow" else 0.0


class Releases(RuleBasedStateMachine):
    reads = Bundle("reads")

    def __init__(self) -> None:
        super().__init__()
        self.state = ControlState()
        self.now = T0
        self.ready = {t.bento: True for t in TARGETS}
        self.ids = 0
        self.history: list[ControlState] = [self.state]
        self.ended: dict[str, Release] = {}

    @initialize(target=reads, begun=st.booleans())
    def there_may_be_a_champion(self, begun: bool) -> ControlState:
        if begun:
            self.state = champion()
            self.history = [self.state]
        return self.state

    # The store

    def commit(self, before: ControlState, after: ControlState) -> bool:
        """Compare and swap."""
        if before.version != self.state.version or after is before:
            return False
        self.check(before, after)
        self.state = after.model_copy(update={"version": before.version + 1})
        self.history.append(self.state)
        return True

    def send(self, command: Command, before: ControlState, again: bool) -> None:
        for _ in range(1 + again):
            try:
                after = apply(before, command, self.now)
            except Refused as error:
                assert error.next_command  # noqa: PT017
            else:
                self.commit(before, after)
            before = self.state  # the reply was lost: read and do it again

    # What must hold of each transition

    def check(self, before: ControlState, after: ControlState) -> None:
        old, new = before.release, after.release
        assert after.seen_us >= before.seen_us
        assert before.champion is None or after.champion is not None, "a lost champion"
        if after.champion != before.champion:
            assert new is not None
            assert after.champion in (new.candidate, new.champion)
            assert new.state in ("promoted", "rolled_back")
            if new.state == "promoted":
                assert before.champion == new.champion
                assert before.champion is None or new.policy.warm_hours == 0 or after.previous == before.champion
        if old is not None and new is not None and old.id == new.id:
            assert weight(new) >= weight(old), "a narrower ramp"
            assert new.step >= old.step
            assert new.step_since_us >= old.step_since_us
            assert new.since_us >= old.since_us
            assert (new.policy_text, new.policy, new.candidate, new.champion) == (
                old.policy_text,
                old.policy,
                old.candidate,
                old.champion,
            )
        for one in (after.ended, new):
            if one is not None and one.id in self.ended:
                was = self.ended[one.id]
                back = (was.state, one.state) == ("promoted", "rolled_back") and before.previous is not None
                assert one == was or back, "an ended release has moved"
        if old is not None and old.active and (new is None or new.id != old.id):
            assert after.ended is not None
            assert (after.ended.id, after.ended.state) == (old.id, "superseded")
        for one in (after.ended, new):
            if one is not None and not one.active:
                self.ended[one.id] = one

    @invariant()
    def the_state_is_whole(self) -> None:
        assert invariants(self.state) == []

    @invariant()
    def a_rollback_is_armed(self) -> None:
        """In every active state with a champion, and after a promotion while the old one is warm."""
        state, release = self.state, self.state.release
        if state.champion is None or release is None or not (release.active or state.previous):
            return
        back = apply(state, Rollback(), self.now)
        assert back.champion == release.champion
        assert back.champion is not None
        assert back.champion.bento in state.live, "whom a rollback goes back to is not up"
        assert invariants(back) == []

    @invariant()
    def what_users_are_on_is_kept_up(self) -> None:
        release = self.state.release
        if self.state.champion is not None:
            assert self.state.champion.bento in self.state.live
        if release is not None and release.active:
            assert release.candidate.bento in self.state.live

    @invariant()
    def the_table_has_one_champion_and_no_traffic_for_an_unready_bento(self) -> None:
        ready = {bento: Upstream(urls=("http://127.0.0.1:1",)) for bento, up in self.ready.items() if up}
        state, release = self.state, self.state.release
        table = compile_table(state, ready, epoch=1, version=1, written_at="")
        assert (table.champion, table.previous) == (state.champion, state.previous)
        assert set(table.bentos) <= set(ready)
        if table.release is not None:
            assert release is not None
            assert release.active
            on_it = table.release.weight or table.release.shadow
            assert bool(on_it) == self.ready[release.candidate.bento]
            assert table.release.weight in (0, weight(release))

    # What can happen

    @rule(target=reads)
    def read(self) -> ControlState:
        return self.state

    @rule(minutes=st.sampled_from([1, 11, 101, 60 * 25, -5, -10_000]))
    def time_passes(self, minutes: int) -> None:
        self.now += minutes * MINUTE

    @rule(bento=st.sampled_from(TARGETS))
    def flap(self, bento: Target) -> None:
        self.ready[bento.bento] = not self.ready[bento.bento]

    @rule(candidate=st.booleans())
    def one_falls_when_all_else_is_well(self, candidate: bool) -> None:
        """The very moment in which the next step is due."""
        release = self.state.release
        if release is not None and release.active and release.champion is not None:
            gone = release.candidate if candidate else release.champion
            self.now = max(self.now, self.state.seen_us) + 11 * MINUTE
            self.ready[gone.bento] = False
            self.the_controller_ticks(None, False, 0.5, False)
            self.ready[gone.bento] = True

    @rule(
        candidate=st.sampled_from(TARGETS),
        plan=st.sampled_from(PLANS),
        supersede=st.booleans(),
        again=st.booleans(),
    )
    def a_person_starts(self, candidate: Target, plan: object, supersede: bool, again: bool) -> None:
        self.ids += 1
        self.send(start(candidate, f"r-{self.ids}", policy=plan, supersede=supersede), self.state, again)

    @rule(floor=st.integers(0, 3), again=st.booleans())
    def a_person_starts_rules(self, floor: int, again: bool) -> None:
        if self.state.champion is None:
            return
        self.ids += 1
        document = RulesDocument(version=f"v{floor}", fresh_floor=floor)
        candidate = Target(bento=self.state.champion.bento, rules=document.digest)
        command: Start = start(candidate, f"r-{self.ids}", release_kind="rules", rules=document, policy=PLANS[3])
        self.send(command, self.state, again)

    @rule(
        command=st.one_of(
            st.builds(Go, step_kind=st.just("canary"), weight=st.sampled_from([None, 1, 5, 25, 50, 100])),
            st.builds(Go, step_kind=st.sampled_from(["shadow", "ab", "next"])),
            st.builds(Promote, force=st.booleans(), verdicts=st.sampled_from([(), (SMOKE,)])),
            st.builds(Rollback, adopted=st.sampled_from([None, "g-1", "g-2"])),
            st.builds(Pause, verdicts=st.sampled_from([(), (FAIL,)])),
            st.just(Resume()),
            st.just(Note(verdicts=(FAIL,))),
        ),
        again=st.booleans(),
    )
    def a_person_commands(self, command: Command, again: bool) -> None:
        self.send(command, self.state, again)

    @rule(
        command=st.sampled_from([Promote(force=True), Rollback(), Resume(), Go(step_kind="canary", weight=100)]),
        again=st.booleans(),
    )
    def a_person_decides(self, command: Command, again: bool) -> None:
        self.send(command, self.state, again)

    @rule(before=reads, command=st.sampled_from([Go(), Promote(force=True), Rollback(), Pause()]))
    def a_slow_client_commands_on_what_it_read_long_ago(self, before: ControlState, command: Command) -> None:
        self.send(command, before, again=False)

    @rule(
        harm=st.sampled_from([None, None, None, "errors", "gate", "soft", "hint"]),
        silent=st.sampled_from([False, False, False, True]),
        srm_p=st.sampled_from([0.5, 0.5, None, 0.0]),
        dies=st.booleans(),
    )
    def the_controller_ticks(self, harm: str | None, silent: bool, srm_p: float | None, dies: bool) -> None:
        before, release = self.state, self.state.release
        if release is None or not release.active:
            return
        if before.champion is None:
            if self.ready[release.candidate.bento] and release.state == "created":
                self.send(Promote(verdicts=(SMOKE,)), before, again=dies)
            return
        worse = Measured(
            name=harm or "-", n=900, n_control=900, value=0.5, value_ci=(0.4, 0.6), effect=0.1,
            ci=(-0.3, -0.2) if harm == "soft" else (0.2, 0.3), control=0.1,
        )  # fmt: skip
        found = evidence(before, metrics={harm: worse} if harm else {}, srm_p=srm_p, ready=dict(self.ready))
        decision = decide(before, None if silent else found, self.now)
        if decision.command is None:
            return
        if isinstance(decision.command, Go | Promote):
            assert not silent, "a pass on silence"
            assert all(self.ready[t.bento] for t in (release.candidate, release.champion) if t), "to an unready Bento"
            assert harm is None or harm not in {v.name for v in decision.verdicts if v.role == "guardrail"}
            assert release.state != "paused"
            if 0 < weight(release) < 100:
                assert srm_p == 0.5, "forward with arms that have not their shares"
            step = release.current
            assert (
                step is None or max(self.now, before.seen_us) - release.step_since_us >= step.least_minutes * MINUTE
            ), "too early"
        self.send(decision.command, before, again=False)
        assert self.state.version == before.version + 1, "what the gates decide, the machine must accept"
        if dies:  # it died before it knew that its commit was in: another one comes with the same decision
            version = self.state.version
            assert not self.commit(before, before.model_copy(update={"seen_us": self.now}))
            assert self.state.version == version

    @rule(ticks=st.integers(1, 8))
    def all_is_well_for_a_while(self, ticks: int) -> None:
        """Long enough for a release to get somewhere."""
        self.ready = dict.fromkeys(self.ready, True)
        for _ in range(ticks):
            self.now = max(self.now, self.state.seen_us) + 11 * MINUTE
            self.the_controller_ticks(None, False, 0.5, False)

    @rule()
    def the_controller_expires(self) -> None:
        before = self.state
        after = expire(before, self.now)
        if after is not before:
            assert after.champion == before.champion
            self.commit(before, after)


ALL = list(HealthCheck)
Releases.TestCase.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=ALL
)
TestReleases: type = Releases.TestCase


@pytest.mark.slow
def test_many_more_sequences() -> None:
    run_state_machine_as_test(
        Releases, settings=settings(max_examples=3000, stateful_step_count=60, deadline=None, suppress_health_check=ALL)
    )
