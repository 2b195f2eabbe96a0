"""One alert with its signals, held down, not flapping, ended with a notice."""

import json
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from monitoring.alerts.grouping import MINUTE_US, Notice, Policy, State, state_document, state_of, step
from monitoring.signals import Signal, Verdict

POLICY = Policy(hold_us=10 * MINUTE_US, clear_us=30 * MINUTE_US, quiet_us=360 * MINUTE_US, stale_us=60 * 24 * MINUTE_US)
MODEL = "streamrec-ranking/7"


def signal(name: str, verdict: Verdict, minute: int, model: str = MODEL) -> Signal:
    return Signal(name, model, verdict, at=minute * MINUTE_US, cause=f"{name} is {verdict}")


def run(rounds: Sequence[tuple[int, Sequence[Signal]]], policy: Policy = POLICY) -> tuple[State, list[Notice]]:
    state: State = {}
    told: list[Notice] = []
    for minute, signals in rounds:
        state, notices = step(state, signals, minute * MINUTE_US, policy)
        told += notices
    return state, told


def drifted(minute: int, verdict: Verdict = "breach") -> list[Signal]:
    return [signal("drift.input.price", verdict, minute), signal("drift.output.score", verdict, minute)]


def test_many_signals_of_one_model_are_one_alert_which_names_them_all():
    _, told = run([(0, drifted(0)), (10, [*drifted(10), signal("skew.rows.price", "breach", 10)])])
    assert [n.kind for n in told] == ["raised"]
    assert [s.name for s in told[0].signals] == ["drift.input.price", "drift.output.score", "skew.rows.price"]
    assert told[0].since_us == 10 * MINUTE_US  # each was seen again just now, and none says since when


def test_an_alert_says_since_when_the_oldest_of_its_signals_is_seen():
    early = Signal("drift.input.price", MODEL, "breach", at=10 * MINUTE_US, since=-5)
    _, told = run([(0, drifted(0)), (10, [early, signal("drift.output.score", "breach", 10)])])
    assert told[0].since_us == -5


def test_a_breach_that_is_gone_within_the_hold_down_is_never_told():
    _, told = run([(0, drifted(0)), (5, drifted(5, "ok")), (15, drifted(15, "ok"))])
    assert told == []


def test_what_flaps_is_told_once_and_recovers_once():
    flapping = [(m, drifted(m, "breach" if m % 20 else "ok")) for m in range(5, 105, 5)]
    calm = [(m, drifted(m, "ok")) for m in range(105, 200, 5)]
    _, told = run([*flapping, *calm])
    assert [n.kind for n in told] == ["raised", "recovered"]
    assert told[0].alert == told[1].alert
    assert told[1].lasted_us == told[1].at_us - told[0].at_us


def test_recovery_waits_until_all_has_been_well_for_a_while():
    rounds = [(0, drifted(0)), (10, drifted(10)), *((m, drifted(m, "ok")) for m in (20, 30, 40, 49, 50))]
    state, told = run(rounds)
    assert [(n.kind, n.at_us // MINUTE_US) for n in told] == [("raised", 10), ("recovered", 50)]
    assert state[MODEL, "quality"].phase == "quiet"


def test_what_cannot_be_seen_neither_raises_nor_ends():
    _, told = run([(m, drifted(m, "inconclusive")) for m in range(0, 100, 10)])
    assert told == []
    _, told = run([(0, drifted(0)), (10, drifted(10)), *((m, drifted(m, "inconclusive")) for m in range(20, 200, 10))])
    assert [n.kind for n in told] == ["raised"]


def test_a_moment_that_cannot_be_seen_starts_no_count_again_and_ends_none():
    blind = [(5, drifted(5, "inconclusive"))]
    assert [n.kind for n in run([(0, drifted(0)), *blind, (10, drifted(10))])[1]] == ["raised"]
    unseen = [(20, drifted(20, "ok")), (45, drifted(45, "inconclusive")), (55, drifted(55, "ok"))]
    assert [n.kind for n in run([(0, drifted(0)), (10, drifted(10)), *unseen])[1]] == ["raised"]


def test_a_check_that_never_sees_does_not_hold_up_the_end():
    blind = [signal("drift.embedding.item", "inconclusive", 0)]
    rounds = [(0, drifted(0)), (10, drifted(10)), *((m, [*drifted(m, "ok"), *blind]) for m in (20, 50))]
    assert [n.kind for n in run(rounds)[1]] == ["raised", "recovered"]


def test_trouble_that_comes_back_soon_must_hold_longer():
    past = [(0, drifted(0)), (10, drifted(10)), (20, drifted(20, "ok")), (50, drifted(50, "ok"))]
    back = [(m, drifted(m)) for m in range(60, 100, 10)]
    _, told = run([*past, *back])
    assert [(n.kind, n.at_us // MINUTE_US) for n in told] == [("raised", 10), ("recovered", 50), ("raised", 90)]


def test_a_new_family_widens_the_alert_and_more_of_the_same_does_not():
    more = [*drifted(20), signal("drift.input.age", "breach", 20)]
    worse = [*drifted(30), signal("outcome.ctr", "breach", 30)]
    _, told = run([(0, drifted(0)), (10, drifted(10)), (20, more), (30, worse), (40, worse)])
    assert [(n.kind, n.at_us // MINUTE_US) for n in told] == [("raised", 10), ("widened", 30)]


def test_a_check_that_does_not_report_any_more_is_forgotten_in_the_end():
    later = 25 * 60
    healthy = [(later + m, [signal("outcome.ctr", "ok", later + m)]) for m in (0, 30)]
    _, told = run([(0, drifted(0)), (10, drifted(10)), *healthy])
    assert [n.kind for n in told] == ["raised", "recovered"]


def test_models_and_subjects_have_alerts_of_their_own():
    signals = [*drifted(0), signal("level.availability", "breach", 0, ""), signal("skew.rows.x", "breach", 0, "m2")]
    again = [Signal(s.name, s.model, s.verdict, at=10 * MINUTE_US) for s in signals]
    _, told = run([(0, signals), (10, again)])
    assert {(n.model, n.subject) for n in told} == {(MODEL, "quality"), ("", "service"), ("m2", "quality")}


def test_the_state_survives_json():
    state, _ = run([(0, drifted(0)), (10, drifted(10))])
    assert state_of(json.loads(json.dumps(state_document(state)))) == state


verdicts = st.lists(st.sampled_from(["ok", "breach", "inconclusive"]), min_size=1, max_size=60)


@given(verdicts)
def test_notices_alternate_whatever_is_seen_and_nothing_changes_when_told_again(seen: list[Verdict]):
    state: State = {}
    kinds = []
    for at, verdict in enumerate(seen):
        signals = [signal("drift.input.price", verdict, at * 10)]
        state, notices = step(state, signals, at * 10 * MINUTE_US, POLICY)
        kinds += [n.kind for n in notices]
        again, repeated = step(state, signals, at * 10 * MINUTE_US, POLICY)
        assert (again, repeated) == (state, [])
    assert kinds == ["raised", "recovered"] * (len(kinds) // 2) + ["raised"] * (len(kinds) % 2)
