"""One alert with its signals, held down, not flapping, ended with a notice."""

import json
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from monitoring.alerts.grouping import MINUTE_US, Notice, Policy, State, state_document, state_of, step
from monitoring.signals import Signal, Verdict
from monitoring.watch.schema import Criticality

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
    assert told[0].since_us == 0  # when they were first seen: none says since when


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
    worse = [(m, [*drifted(m), signal("outcome.ctr", "breach", m)]) for m in (30, 40, 50)]
    _, told = run([(0, drifted(0)), (10, drifted(10)), (20, more), *worse])
    assert [(n.kind, n.at_us // MINUTE_US) for n in told] == [("raised", 10), ("widened", 40)]


def test_one_look_raises_nothing_and_ends_nothing_however_long_ago_it_was():
    waiting = [(m, []) for m in range(1, 60)]  # the watch goes round each minute, the check looks once an hour
    _, told = run([(0, drifted(0)), *waiting])
    assert told == []
    raised = [(0, drifted(0)), *waiting, (60, drifted(60))]
    over = [(m + 120, []) for m in range(1, 60)]
    _, told = run([*raised, (120, drifted(120, "ok")), *over])
    assert [(n.kind, n.at_us // MINUTE_US) for n in told] == [("raised", 60)]
    _, told = run([*raised, (120, drifted(120, "ok")), *over, (180, drifted(180, "ok"))])
    assert [n.kind for n in told] == ["raised", "recovered"]


def test_two_checks_that_looked_once_do_not_bear_each_other_out():
    _, told = run([(0, drifted(0)), (12, [signal("skew.rows.price", "breach", 12)]), (30, [])])
    assert told == []


PAGED: dict[str, Criticality] = {"level.availability": "page", "level.latency": "page", "outcome.ctr": "page"}


def weigh(one: Signal) -> Criticality:
    return one.details.get("severity") or PAGED.get(one.name, "ticket")


def levels(rounds: Sequence[tuple[int, Sequence[Signal]]]) -> list[tuple[str, str, int]]:
    """What is told of service levels, which hold nothing."""
    state: State = {}
    told: list[Notice] = []
    for minute, signals in rounds:
        state, notices = step(state, signals, minute * MINUTE_US, replace(POLICY, hold_us=0), weigh)
        told += notices
    return [(n.kind, n.criticality, n.at_us // MINUTE_US) for n in told]


def level(name: str, minute: int, severity: str = "", verdict: Verdict = "breach") -> Signal:
    details = {"severity": severity} if severity else {}
    return Signal(f"level.{name}", "", verdict, minute * MINUTE_US, cause=verdict, details=details)


def test_a_page_is_not_swallowed_by_a_ticket_that_is_open():
    slow, fast = level("availability", 5, "ticket"), level("availability", 9, "page")
    late = [(0, [level("streaming_features", 0)])]
    assert levels([*late, (9, [fast]), (10, [fast])]) == [("raised", "ticket", 0), ("widened", "page", 9)]
    assert levels([(5, [slow]), (9, [fast]), (20, [slow]), (30, [fast])]) == [
        ("raised", "ticket", 5),
        ("widened", "page", 9),
    ]


def test_each_service_level_is_told_and_an_open_page_hides_no_other():
    burns = [(0, [level("availability", 0, "page")]), (3, [level("latency", 3, "ticket")])]
    worse = [*burns, (6, [level("latency", 6, "page")]), (9, [level("streaming_features", 9)])]
    assert levels(worse) == [
        ("raised", "page", 0),
        ("widened", "ticket", 3),
        ("widened", "page", 6),
        ("widened", "ticket", 9),
    ]
    over = [
        (m, [level(n, m, verdict="ok") for n in ("availability", "latency", "streaming_features")]) for m in (15, 45)
    ]
    assert levels([*worse, *over])[-1] == ("recovered", "page", 45)


def test_a_page_that_one_look_saw_is_named_in_the_ticket_and_told_as_a_page_when_it_holds():
    def rounds(*minutes: int) -> list[tuple[int, list[Signal]]]:
        return [(m, [*drifted(m), *([signal("outcome.ctr", "breach", m)] if m else [])]) for m in minutes]

    state: State = {}
    told: list[Notice] = []
    for minute, signals in rounds(0, 10, 20, 30):
        state, notices = step(state, signals, minute * MINUTE_US, POLICY, weigh)
        told += notices
    assert [(n.kind, n.criticality, n.at_us // MINUTE_US) for n in told] == [
        ("raised", "ticket", 10),
        ("widened", "page", 20),
    ]
    assert "outcome.ctr" in {s.name for s in told[0].signals}


def test_a_state_of_before_criticality_was_kept_is_read():
    state, _ = run([(0, drifted(0)), (10, drifted(10))])
    document = state_document(state)
    document[0]["told"] = list(document[0]["told"])
    assert state_of(document) == state


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
