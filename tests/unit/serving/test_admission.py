"""Overload, decided without a clock, a thread or a loop of its own; and a queue in virtual time that it controls."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.recommender.admission import Admission, AdmissionPolicy

ORDER = ["full", "simple_ranking", "lists", None]  # best to worst
PLENTY = 10.0


def start(admission, now, *, left_s=PLENTY, queued_s=0.0):
    return admission.start(now, left_s=left_s, queued_s=queued_s)


def just_overloaded(now=0.0):
    """One that has seen three times what it can do for a second."""
    admission = Admission()
    for i in range(600):
        start(admission, now - 1.0 + i / 600)
    assert admission.overloaded
    return admission


def overloaded(now=0.0):
    """The same, with nothing that waits: for a look at one moment, as its clock for waits has gone on."""
    admission = just_overloaded(now)
    admission.wait_s(now + 1e3, 0.0)  # what was let in is done
    assert start(admission, now) == "full"
    admission.wait_s(now + 2e3, 0.0)
    return admission


def test_a_burst_is_waited_out_and_all_of_it_ranked_fully():
    admission = Admission()
    assert [start(admission, 1.0) for _ in range(8)] == ["full"] * 8
    assert not admission.overloaded


def test_a_burst_at_one_moment_is_not_let_in_past_the_patience():
    """Nothing of it is in the thread's queue yet: what was let in counts by itself."""
    admission = Admission()
    taken = [start(admission, 1.0) for _ in range(60)]
    cost = admission.cost_s("full")
    assert taken.count("full") == int(AdmissionPolicy().patience_s / cost) + 1
    assert taken[-1] == "lists"
    assert admission.overloaded


def test_while_it_is_overloaded_the_wait_says_which_rung():
    cost = Admission().cost_s("full")
    waits = [0.0, 0.4 * cost, 0.6 * cost, 0.9 * cost, 1.1 * cost, 100 * cost]
    seen = [start(overloaded(), 0.0, queued_s=wait) for wait in waits]
    assert seen == ["full", "full", "simple_ranking", "simple_ranking", "lists", "lists"]


def test_there_is_one_simple_ranking_at_most_between_two_full_ones():
    cost, admission = Admission().cost_s("full"), just_overloaded()
    seen = []
    for i, wait in enumerate([0.1, 0.9, 0.9, 0.8, 0.1, 0.9, 0.9]):
        admission.wait_s(0.1 * (i + 1), 0.0)  # what was let in before is done
        seen.append(start(admission, 0.1 * (i + 1), queued_s=wait * cost))
    seen = seen[1:]
    assert seen == ["simple_ranking", "lists", "lists", "full", "simple_ranking", "lists"]


def test_whether_an_overload_is_over_is_looked_at_less_and_less_often():
    admission, looks, now = just_overloaded(), [], 0.0
    while now < 100.0:
        before = admission.overloaded
        now += admission.cost_s("full") / 3
        start(admission, now)
        if before and not admission.overloaded:
            looks.append(now)
    gaps = np.diff(looks)
    assert gaps == pytest.approx([4.0, 8.0, 16.0, 30.0, 30.0], abs=1.0)


def test_clients_that_ask_again_at_once_do_not_keep_an_overload_up():
    """Ranked fully, eight of them wait eight service times; of lists they get thousands of answers a second."""
    admission, list_s, now = just_overloaded(), 0.0003, 0.0
    free_at, asks_at, last = 0.0, [0.0] * 8, []
    while now < 5.0:
        client = int(np.argmin(asks_at))
        now = asks_at[client]
        aim = start(admission, now, queued_s=max(free_at - now, 0.0))
        if aim == "lists":
            asks_at[client] = now + list_s
        else:
            free_at = max(free_at, now) + admission.cost_s(aim)
            asks_at[client] = free_at
        last.append((now, aim))
    assert {aim for at, aim in last if at < 1.0} == {"full", "simple_ranking", "lists"}
    assert {aim for at, aim in last if at > 3.0} == {"full"}


def test_load_about_the_limits_does_not_flap():
    """Between `end` and `begin` it stays what it was: six seconds of every load between, up and down."""
    admission, now, states = Admission(AdmissionPolicy(look_s=60.0)), 0.0, []
    for load in [*np.linspace(0.3, 2.0, 600), *np.linspace(2.0, 0.3, 600)]:
        for _ in range(4):
            now += admission.cost_s("full") / load
            start(admission, now, queued_s=0.0)
            states.append(admission.overloaded)
    assert sum(a != b for a, b in itertools.pairwise(states)) == 2


PAIR = st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted)


@given(now=st.floats(0, 1e6), before=st.booleans(), queued=PAIR, late=PAIR, left=PAIR)
def test_more_load_or_less_time_never_gives_a_better_rung(now, before, queued, late, left):
    light, heavy = (overloaded(now) if before else Admission() for _ in range(2))
    for admission, late_s in ((light, late[0]), (heavy, late[1])):
        for _ in range(20):
            admission.tick(late_s)
    better = start(light, now, queued_s=queued[0], left_s=left[1])
    worse = start(heavy, now, queued_s=queued[1], left_s=left[0])
    assert ORDER.index(worse) >= ORDER.index(better)


LOOKS = st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 1), st.floats(0, 2)), max_size=60)


@given(LOOKS)
def test_none_is_refused_while_the_loop_keeps_up(looks):
    """Whatever waits for the thread: lists need only the loop."""
    admission, now = Admission(), 0.0
    for gap, queued_s, late_s in looks:
        now += gap
        admission.tick(min(late_s, AdmissionPolicy().refuse_lag_s))
        assert start(admission, now, queued_s=queued_s, left_s=0.0) is not None


@given(LOOKS)
def test_it_recovers_by_itself_whatever_came_before(looks):
    admission, now = Admission(), 0.0
    for gap, queued_s, late_s in looks:
        now += gap
        admission.tick(late_s)
        start(admission, now, queued_s=queued_s)
    for _ in range(100):
        admission.tick(0.0)
    assert start(admission, now + 5.0) == "full"


def test_one_pause_of_the_machine_refuses_nobody_and_a_loop_that_stays_late_does():
    admission = overloaded()
    admission.tick(0.4)
    assert start(admission, 0.0) is not None
    for _ in range(10):
        admission.tick(0.15)
    assert start(admission, 0.0) is None
    assert start(admission, 60.0) is not None  # still late, but hardly anybody asks: it is not the load


def test_a_lag_that_swings_about_the_limit_does_not_flap():
    limit = AdmissionPolicy().refuse_lag_s
    admission, refused = overloaded(), []
    for i in range(400):
        admission.tick(limit * (1.4 if i % 2 else 0.5) if i > 200 else 2 * limit)
        refused.append(start(admission, 0.0) is None)
    assert sum(a != b for a, b in itertools.pairwise(refused)) == 1


def test_a_user_without_features_loses_the_deep_ranker_only_under_overload():
    assert not Admission().thin(0.0)
    assert overloaded().thin(0.1)
    assert not overloaded().thin(0.9)


def test_what_answers_take_moves_the_limits():
    admission = Admission()
    for _ in range(200):
        admission.learn("full", 0.040)
    assert admission.cost_s("full") == pytest.approx(0.040, rel=0.01)
    assert start(Admission(), 0.0, left_s=0.030) == "full"
    assert start(admission, 0.0, left_s=0.030) == "simple_ranking"  # no time to rank fully


def test_one_answer_that_a_pause_of_the_machine_held_up_moves_no_limit():
    admission = Admission()
    before = admission.cost_s("full")
    admission.learn("full", 20.0)
    assert admission.cost_s("full") < 1.2 * before
    assert [start(admission, 0.0) for _ in range(8)] == ["full"] * 8


@dataclass
class Queue:
    """One server in order, Poisson arrivals; lists take the server nothing. Virtual seconds."""

    full_s: float = 0.005
    simple_s: float = 0.0025
    slow: float = 1.0  # the server really takes so many times what the controller has learned
    admission: Admission = field(default_factory=Admission)
    free_at: float = 0.0
    now: float = 0.0

    def run(self, rate, seconds, rng):
        taken, waits = [], []
        until = self.now + seconds
        while self.now < until:
            self.now += rng.exponential(1 / rate)
            queued = max(self.free_at - self.now, 0.0)
            aim = start(self.admission, self.now, queued_s=queued if self.slow != 1.0 else 0.0)
            taken.append(aim)
            if aim in ("full", "simple_ranking"):
                waits.append(queued)
                self.free_at = max(self.free_at, self.now) + self.slow * (
                    self.full_s if aim == "full" else self.simple_s
                )
        return taken, waits


@pytest.mark.parametrize("slow", [1.0, 1.6])
def test_at_three_times_the_peak_all_are_answered_nobody_waits_long_and_the_server_is_kept_busy(slow):
    rng = np.random.default_rng(5)
    queue = Queue(slow=slow)
    calm, _ = queue.run(0.5 / queue.full_s / slow, 20, rng)
    assert calm.count("full") > 0.97 * len(calm)  # at half of its peak
    queue.run(3 / queue.full_s / slow, 0.5, rng)  # it takes that long to be told from a burst
    began = queue.now
    taken, waits = queue.run(3 / queue.full_s / slow, 20, rng)
    assert None not in taken
    in_time = [wait <= AdmissionPolicy().simple_wait * queue.full_s + 1e-9 for wait in waits]
    assert len(waits) - sum(in_time) < 0.01 * len(taken)  # those of a look whether it is over
    assert max(waits) <= AdmissionPolicy().patience_s + queue.full_s * slow
    work = slow * (taken.count("full") * queue.full_s + taken.count("simple_ranking") * queue.simple_s)
    assert work / (queue.now - began) > 0.9  # it sheds no more than it must
    queue.run(0.5 / queue.full_s / slow, 2, rng)
    after, _ = queue.run(0.5 / queue.full_s / slow, 20, rng)
    assert after.count("full") > 0.97 * len(after)
