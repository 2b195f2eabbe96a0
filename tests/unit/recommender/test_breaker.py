from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bentos.recommender.breaker import DEPENDENCY, Breaker, BreakerPolicy

POLICY = BreakerPolicy(consecutive=3, share=0.5, least=10, window_s=5, open_s=1.0, open_max_s=4.0, probes=2, good=2)


def fails(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        permit = breaker.allow(now)
        if permit is not None:
            breaker.bad(permit, now)


def test_it_opens_on_failures_in_a_row_and_asks_no_more():
    breaker = Breaker(POLICY)
    fails(breaker, 2)
    assert breaker.state == "closed"
    fails(breaker, 1)
    assert breaker.state == "open"
    assert breaker.allow(0.99) is None


def test_a_good_answer_in_between_breaks_the_row():
    breaker = Breaker(POLICY)
    for _ in range(3):
        fails(breaker, 2)
        breaker.good(breaker.allow(0.0), 0.0)
    assert breaker.state == "closed"


def test_it_opens_on_a_share_of_failures_over_the_window():
    breaker = Breaker(POLICY)
    for n in range(12):  # two bad, one good: 67 % bad, never three in a row; opens once there are 10 results
        fails(breaker, 1) if n % 3 else breaker.good(breaker.allow(0.0), 0.0)
        if breaker.state == "open":
            break
    assert (n, breaker.state) == (10, "open")


def test_failures_older_than_the_window_are_forgotten():
    breaker = Breaker(POLICY)
    for second in range(100):  # a failure and a good answer in turn, two results a second: exactly half
        fails(breaker, 1, second)
        breaker.good(breaker.allow(second), second)
    assert breaker.state == "closed"


def test_a_bounded_number_of_probes_closes_it_again():
    breaker = Breaker(POLICY)
    fails(breaker, 3)
    first, second, third = breaker.allow(1.0), breaker.allow(1.0), breaker.allow(1.0)
    assert first is not None
    assert second is not None
    assert third is None
    breaker.good(first, 1.0)
    assert breaker.state == "half_open"
    breaker.good(second, 1.0)
    assert breaker.state == "closed"


def test_each_failed_probe_doubles_the_time_it_stays_open_up_to_a_most():
    breaker = Breaker(POLICY)
    fails(breaker, 3, 0.0)
    now = 0.0
    for wait in (1.0, 2.0, 4.0, 4.0):
        assert breaker.allow(now + wait - 0.01) is None
        now += wait
        breaker.bad(breaker.allow(now), now)


def test_a_probe_whose_caller_gave_up_gives_its_place_back():
    breaker = Breaker(POLICY)
    fails(breaker, 3)
    for _ in range(10):
        permit = breaker.allow(1.0)
        assert permit is not None
        breaker.none(permit)


def test_a_late_result_of_an_earlier_state_counts_for_nothing():
    breaker = Breaker(POLICY)
    early = breaker.allow(0.0)
    fails(breaker, 3)
    probe = breaker.allow(1.0)
    breaker.bad(early, 1.0)
    assert breaker.state == "half_open"
    breaker.good(early, 1.0)
    breaker.good(probe, 1.0)
    assert breaker.state == "half_open"


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, also with a clock that jumps: probes stay bounded and it never locks up."""

    def __init__(self):
        super().__init__()
        self.breaker = Breaker(POLICY)
        self.now = 0.0
        self.out: list[int] = []

    @rule(by=st.floats(-2, 10))
    def time_goes(self, by):
        self.now += by

    @rule()
    def ask(self):
        permit = self.breaker.allow(self.now)
        if permit is not None:
            self.out.append(permit)

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0), what=st.sampled_from(["good", "bad", "none"]))
    def answer(self, which, what):
        permit = self.out.pop(which % len(self.out))
        if what == "none":
            self.breaker.none(permit)
        else:
            getattr(self.breaker, what)(permit, self.now)

    @invariant()
    def probes_are_bounded(self):
        under_way = sum(p == self.breaker.generation for p in self.out)
        if self.breaker.state == "half_open":
            assert under_way <= POLICY.probes
        if self.breaker.state == "open":
            assert under_way == 0

    @invariant()
    def it_can_always_recover(self):
        if self.breaker.state == "open":
            assert self.breaker._until <= self.now + POLICY.open_max_s + 1000


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase


@given(st.integers(1, 50), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_a_target_that_fails_every_request_gets_few_of_them(per_second, phase):
    """At any rate: five to open it, and then a probe at 0.5, 1.5, 3.5, 7.5 and 12.5 s."""
    breaker = Breaker()
    asked = 0
    for n in range(per_second * 15):
        now = phase + n / per_second
        permit = breaker.allow(now)
        if permit is not None:
            asked += 1
            breaker.bad(permit, now)
    assert asked <= 5 + 5


def test_a_dependency_is_left_alone_for_30_s_after_5_failures_and_three_probes_at_once_ask_it_again():
    breaker = Breaker(DEPENDENCY)
    fails(breaker, 4, 100.0)
    assert breaker.state == "closed"
    fails(breaker, 1, 100.0)
    assert breaker.state == "open"
    assert breaker.allow(129.9) is None
    probes = [breaker.allow(130.0) for _ in range(4)]
    assert [p is not None for p in probes] == [True, True, True, False]
    for permit in probes[:3]:
        breaker.good(permit, 130.1)
    assert breaker.state == "closed"
    fails(breaker, 5, 131.0)
    breaker.bad(breaker.allow(161.0), 161.0)  # a bad probe: 30 s again, not longer each time
    assert breaker.allow(190.9) is None
    assert breaker.allow(191.0) is not None
