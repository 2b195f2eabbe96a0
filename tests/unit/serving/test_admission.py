"""Overload, decided without a clock, a thread or a loop of its own; and a queue in virtual time that it controls."""

import heapq
import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.recommender.admission import Admission, AdmissionPolicy

ORDER = ["full", "simple_ranking", "lists", "at_hand", None]  # best to worst
PLENTY = 10.0


def start(admission, now, *, left_s=PLENTY, queued_s=0.0):
    aim = admission.start(now, left_s=left_s, queued_s=queued_s)
    if aim == "lists" and not admission.reads():
        aim = "at_hand"
    if aim in ("full", "simple_ranking"):
        admission.let_in(aim)
    return aim


def just_overloaded(now=0.0, policy=None):
    """One that has seen three times what it can do for a second, of which nothing waits any more."""
    admission = Admission(policy)
    taken = [start(admission, now - 1.0 + i / 600) for i in range(600)]
    assert admission.overloaded
    for aim in ("full", "simple_ranking"):
        for _ in range(taken.count(aim)):
            admission.done(aim)
    return admission


def overloaded(now=0.0):
    """The same, whose last answer was a full one."""
    admission = just_overloaded(now)
    assert start(admission, now) == "full"
    admission.done("full")
    return admission


@dataclass
class Server:
    """One thread in order; lists take it nothing. Virtual seconds."""

    full_s: float = 0.005
    simple_s: float = 0.0025
    list_s: float = 0.0003
    speed: float = 1.0  # what is ranked really takes so many times what the controller has learned
    admission: Admission = field(default_factory=Admission)
    now: float = 0.0
    waits: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    _free_at: float = 0.0
    _under_way: list[tuple[float, str]] = field(default_factory=list)  # a heap: when done, aim

    def ask(self, at):
        """A request at `at`: its rung, and when it has its answer."""
        while self._under_way and self._under_way[0][0] <= at:
            self.admission.done(heapq.heappop(self._under_way)[1])
        before, self.now = self.admission.overloaded, at
        queued = max(self._free_at - at, 0.0)
        aim = start(self.admission, at, queued_s=queued)
        if before and not self.admission.overloaded:
            self.looks.append(at)
        if aim not in ("full", "simple_ranking"):
            return aim, at + self.list_s
        self.waits.append(queued)
        self._free_at = max(self._free_at, at) + self.speed * (self.full_s if aim == "full" else self.simple_s)
        heapq.heappush(self._under_way, (self._free_at, aim))
        return aim, self._free_at

    def run_open(self, rate, seconds, rng):
        """Poisson arrivals."""
        taken, until, at = [], self.now + seconds, self.now
        while (at := at + rng.exponential(1 / rate)) < until:
            taken.append(self.ask(at)[0])
        return taken

    def run_closed(self, clients, seconds, rng):
        """Each asks again when it has its answer, within a tenth of a millisecond."""
        taken, until = [], self.now + seconds
        asks = [(self.now + rng.uniform(0, 1e-4), n) for n in range(clients)]
        heapq.heapify(asks)
        while asks[0][0] < until:
            at, n = heapq.heappop(asks)
            aim, answered = self.ask(at)
            taken.append(aim)
            heapq.heappush(asks, (answered + rng.uniform(0, 1e-4), n))
        return taken


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
        seen.append(start(admission, 0.1 * (i + 1), queued_s=wait * cost))
        if seen[-1] != "lists":
            admission.done(seen[-1])
    assert seen == ["full", "simple_ranking", "lists", "lists", "full", "simple_ranking", "lists"]


def test_work_that_was_guessed_too_long_does_not_pile_up():
    """Eight clients that ask again at once, a thread that is a tenth faster than was learned: the wait is never more
    than they are."""
    admission, now = Admission(), 0.0
    for _ in range(8):
        start(admission, now)
    for _ in range(10_000):
        now += 0.9 * admission.cost_s("full")
        admission.done("full")
        assert start(admission, now) == "full"
        assert admission.wait_s(now, 0.0) <= 8 * admission.cost_s("full") + 1e-9


def test_requests_that_wait_for_something_else_than_the_thread_are_no_load():
    """Those of a slow store, say: they were let in long ago, and the thread is idle."""
    admission = Admission()
    for _ in range(10):
        start(admission, 0.0)
    assert admission.wait_s(0.0, 0.0) > 0
    assert admission.wait_s(1.0, 0.0) == 0


def test_what_the_loop_is_late_by_counts_as_wait():
    admission = overloaded()
    for _ in range(100):
        admission.tick(2 * admission.cost_s("full"))
    assert start(admission, 0.0) == "lists"


def test_whether_an_overload_is_over_is_looked_at_less_and_less_often():
    server = Server(admission=just_overloaded(policy=AdmissionPolicy(look_s=1.0, look_max_s=5.0)))
    server.run_open(3 / server.full_s, 20.0, np.random.default_rng(3))
    assert np.diff(server.looks) == pytest.approx([2.0, 4.0, 5.0, 5.0], abs=0.3)


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
@pytest.mark.parametrize("clients", [1, 8, 12])
def test_clients_in_a_closed_loop_whose_wait_fits_the_deadline_are_ranked_fully(clients, speed):
    """Whatever the guess of a service time: no overload ever begins."""
    server = Server(speed=speed)
    taken = server.run_closed(clients, 20.0, np.random.default_rng(clients))
    assert set(taken) == {"full"}


def test_more_clients_in_a_closed_loop_than_the_deadline_has_room_for_are_an_overload():
    taken = Server().run_closed(64, 0.5, np.random.default_rng(1))
    assert {"full", "lists"} <= set(taken)


def test_clients_that_ask_again_at_once_keep_an_overload_up_until_the_next_look():
    """Ranked fully, eight of them wait eight service times; of lists they get thousands of answers a second."""
    server = Server(admission=just_overloaded(policy=AdmissionPolicy(look_s=1.0)))
    before = server.run_closed(8, 0.8, np.random.default_rng(1))
    server.run_closed(8, 0.4, np.random.default_rng(2))
    after = server.run_closed(8, 20.0, np.random.default_rng(3))
    assert set(before) == {"full", "simple_ranking", "lists"}
    assert set(after) == {"full"}


def test_load_about_the_limits_does_not_flap():
    """Once begun it stays until the load is well below what can be done: every load between, up and down."""
    server, states = Server(), []
    for load in [*np.linspace(0.3, 2.0, 600), *np.linspace(2.0, 0.3, 600)]:
        for _ in range(4):
            server.ask(server.now + server.full_s / load)
            states.append(server.admission.overloaded)
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
    for _ in range(110):
        admission.tick(0.0)
    assert start(admission, now + 5.0) == "full"
    assert (admission.answered, admission.read) == (1.0, 1.0)


def test_one_pause_of_the_machine_refuses_nobody_and_a_loop_that_stays_late_does():
    admission = overloaded()
    admission.tick(0.4)
    assert start(admission, 0.0) is not None
    for _ in range(10):
        admission.tick(0.3)
    assert start(admission, 0.0) is None
    assert start(admission, 60.0) is not None  # still late, but hardly anybody asks: it is not the load


def test_a_lag_that_swings_about_the_limit_does_not_flap():
    limit = AdmissionPolicy().refuse_lag_s
    admission, answered = overloaded(), []
    for i in range(400):
        admission.tick(limit * (1.4 if i % 2 else 0.5) if i > 200 else 2 * limit)
        answered.append(admission.answered)
    assert answered[200] < 0.15
    assert all(a <= b for a, b in itertools.pairwise(answered[200:]))


def test_a_loop_that_stays_late_refuses_more_and_more_and_never_all():
    """Clients that come again at once could keep it late with refusals alone, and nobody would be answered."""
    admission, now, shares = overloaded(), 0.0, []
    for _ in range(30):
        admission.tick(0.2)
        taken = []
        for _ in range(100):
            now += 2e-4
            taken.append(start(admission, now, queued_s=1.0))
        shares.append(sum(aim is not None for aim in taken) / 100)
    assert shares[0] == 1.0
    assert all(a >= b - 0.011 for a, b in itertools.pairwise(shares))
    assert shares[-1] == pytest.approx(AdmissionPolicy().never_refused, abs=0.011)


def test_a_flood_of_cheap_answers_leaves_full_ones_their_share():
    """The loop is late by what would leave none, and the thread is idle."""
    admission, policy = overloaded(), AdmissionPolicy()
    cost = admission.cost_s("full")
    for _ in range(100):
        admission.tick(0.03)
    taken, free_at = [], 0.0
    for now in np.arange(0.0, 2.0, 1e-3):
        admission.tick(0.03)
        taken.append(start(admission, now, left_s=0.145, queued_s=max(free_at - now, 0.0)))
        if taken[-1] == "full":
            free_at = now + cost
            admission.done("full")
    assert taken.count("full") * cost / 2.0 == pytest.approx(policy.kept, rel=0.1)
    assert set(taken) == {"full", "lists"}


def test_lists_are_read_no_more_before_anybody_is_refused():
    """A loop that is late by more than a full answer has room for: what is at hand costs it a third of a list."""
    admission, now, taken = overloaded(), 0.0, []
    for _ in range(60):
        admission.tick(1.5 * AdmissionPolicy().read_lag_s)
        for _ in range(10):
            now += 1e-3
            taken.append(start(admission, now, queued_s=1.0))
    assert taken[0] == "lists"
    assert taken[-300:].count("at_hand") > 0.95 * 300
    assert None not in taken
    for _ in range(200):
        admission.tick(0.0)
        now += 1e-3
        taken.append(start(admission, now, queued_s=1.0))
    assert set(taken[-100:]) == {"lists"}


def test_lists_are_not_read_again_before_all_are_answered():
    admission = overloaded()
    for _ in range(40):
        admission.tick(0.4)
    unread = admission.read
    assert admission.answered == AdmissionPolicy().never_refused
    while admission.answered < 1.0:
        assert admission.read == unread
        admission.tick(0.0)
    admission.tick(0.0)
    assert admission.read > unread


def test_a_loop_that_is_late_two_times_of_three_is_not_late_all_the_time():
    admission = overloaded()
    for _ in range(20):
        for late_s in (0.4, 0.4, 0.0):
            admission.tick(late_s)
    assert (admission.answered, admission.read) == (1.0, 1.0)


def test_a_loop_that_is_late_without_load_still_reads_lists():
    admission = Admission()
    for _ in range(60):
        admission.tick(0.09)
    assert start(admission, 60.0, left_s=0.0) == "lists"


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


@pytest.mark.parametrize("speed", [1.0, 1.6])
def test_at_three_times_the_peak_all_are_answered_nobody_waits_long_and_the_server_is_kept_busy(speed):
    rng = np.random.default_rng(5)
    server = Server(speed=speed)
    peak = 1 / server.full_s / speed
    calm = server.run_open(0.5 * peak, 20, rng)
    assert calm.count("full") > 0.97 * len(calm)
    began, calm_waits = server.now, len(server.waits)
    taken = server.run_open(3 * peak, 20, rng)
    waits = server.waits[calm_waits:]
    assert None not in taken
    late = sum(wait > AdmissionPolicy().simple_wait * server.full_s + 1e-9 for wait in waits)
    assert late < 0.01 * len(taken)  # those of its beginning, and of a look whether it is over
    assert max(waits) <= AdmissionPolicy().patience_s + server.full_s * speed
    work = speed * (taken.count("full") * server.full_s + taken.count("simple_ranking") * server.simple_s)
    assert work / (server.now - began) > 0.9  # it sheds no more than it must
    server.run_open(0.5 * peak, 2, rng)
    after = server.run_open(0.5 * peak, 20, rng)
    assert after.count("full") > 0.97 * len(after)
