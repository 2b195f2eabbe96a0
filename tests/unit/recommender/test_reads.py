"""Reads of the online store: shared, kept, bounded, hedged, and stopped by a breaker; in virtual time."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bentos.recommender.breaker import Breaker, dependency
from bentos.recommender.reads.choose import user_reads
from bentos.recommender.reads.hedge import P95, HedgeBudget
from bentos.recommender.reads.local import LocalReads
from bentos.recommender.reads.recent import Recent
from bentos.recommender.reads.remote import RemoteReads
from contracts.errors import Overloaded, StreamRecError, Unreachable
from contracts.settings import Settings
from features.online.base import Interaction, UserState
from tests.virtual_time import VirtualLoop

LIMIT_S = 0.015


class Store:
    """Answers after `delay_s` with what it held when it was asked. `asked`: how often, by user."""

    def __init__(self, delay_s=0.001):
        self.delay_s = delay_s
        self.error = None
        self.asked = Counter()
        self.under_way = self.most = 0
        self.version = Counter()

    async def read_user(self, user_id):
        self.asked[user_id] += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        state = UserState(user_id, last=(Interaction("i1", "click", self.version[user_id]),))
        try:
            await asyncio.sleep(self.delay_s)
            if self.error:
                raise self.error
        finally:
            self.under_way -= 1
        return state


class World:
    def __init__(self, replica=False, **options):
        self.loop = VirtualLoop()
        self.store = Store()
        self.replica = Store() if replica else None
        self.reads = RemoteReads(
            self.store, self.replica, limit_s=LIMIT_S, policy=dependency(30.0), clock=self.loop.time, **options
        )

    def ask(self, *users, wait_s=1.0):
        """What each gets: a state, or what was raised."""

        async def one(user):
            try:
                async with asyncio.timeout(wait_s):
                    return await self.reads.read_user(user)
            except (StreamRecError, TimeoutError) as error:
                return error

        async def all_of_them():
            return await asyncio.gather(*map(one, users))

        return self.loop.run_until_complete(all_of_them())

    def pass_time(self, seconds):
        self.loop.run_until_complete(asyncio.sleep(seconds))


@pytest.fixture
def world():
    made = World()
    yield made
    made.loop.close()


@pytest.fixture
def two():
    made = World(replica=True, keep_s=0)
    yield made
    made.loop.close()


def test_concurrent_reads_of_one_user_share_one_read(world):
    states = world.ask(*["u1"] * 50, "u2")
    assert {state.user_id for state in states} == {"u1", "u2"}
    assert world.store.asked == {"u1": 1, "u2": 1}
    assert world.reads.counts["shared"] == 49


def test_a_state_is_kept_for_half_a_second_from_when_it_was_asked_for(world):
    world.ask("u1")
    world.pass_time(0.49)
    world.ask("u1")
    assert world.store.asked["u1"] == 1
    world.pass_time(0.02)
    world.ask("u1")
    assert world.store.asked["u1"] == 2


def test_after_an_event_nothing_read_before_it_is_used_again(world):
    world.ask("u1")
    world.store.version["u1"] = 7
    world.reads.forget("u1")
    assert world.ask("u1")[0].last[0].timestamp_us == 7

    async def while_a_read_is_under_way():
        early = asyncio.ensure_future(world.reads.read_user("u2"))
        await asyncio.sleep(0.0005)
        world.store.version["u2"] = 9
        world.reads.forget("u2")
        return await world.reads.read_user("u2"), await early

    late, early = world.loop.run_until_complete(while_a_read_is_under_way())
    assert (late.last[0].timestamp_us, early.last[0].timestamp_us) == (9, 0)
    assert world.ask("u2")[0].last[0].timestamp_us == 9  # and it is the later that is kept


def test_only_so_many_users_are_kept_and_the_longest_unused_goes():
    recent = Recent(keep_s=1.0, capacity=2)
    for user in "ab":
        recent.put(user, 0.0, UserState(user))
    assert recent.get("a", 0.1)
    recent.put("c", 0.1, UserState("c"))
    assert (recent.get("b", 0.2), len(recent)) == (None, 2)


def test_five_late_reads_open_the_breaker_and_then_nobody_waits(world):
    world.store.delay_s = 2.0
    for n in range(5):
        assert isinstance(world.ask(f"u{n}")[0], Unreachable)
    asked, before = world.store.asked.total(), world.loop.time()
    answers = world.ask(*(f"v{n}" for n in range(100)))
    assert all("left alone" in error.message for error in answers)
    assert (world.store.asked.total(), world.loop.time()) == (asked, before)


def test_three_probes_after_30_s_close_it_again(world):
    world.store.error = Unreachable("away")
    for n in range(5):
        world.ask(f"u{n}")
    world.store.error = None
    world.pass_time(29.0)
    assert isinstance(world.ask("w")[0], Unreachable)
    world.pass_time(1.1)
    got = world.ask(*(f"x{n}" for n in range(10)))
    assert sum(isinstance(state, UserState) for state in got) == 3
    assert world.reads.breakers["online_store"].state == "closed"
    assert all(isinstance(state, UserState) for state in world.ask(*(f"y{n}" for n in range(10))))


def test_a_slow_store_holds_no_more_than_so_many_reads_and_refuses_the_rest_at_once():
    world = World(most=8)
    world.store.delay_s = 2.0
    began = world.loop.time()
    answers = world.ask(*(f"u{n}" for n in range(100)))
    assert world.store.most == 8
    assert sum(isinstance(answer, Overloaded) for answer in answers) == 92
    assert world.loop.time() - began == pytest.approx(LIMIT_S)
    assert world.reads.reading == 0
    world.loop.close()


def test_callers_that_give_up_sooner_do_not_judge_the_store(world):
    world.store.delay_s = 0.010
    for n in range(20):
        assert isinstance(world.ask(f"u{n}", wait_s=0.001)[0], TimeoutError)
        world.pass_time(0.020)
    assert world.reads.breakers["online_store"].state == "closed"


def test_a_busy_event_loop_does_not_open_the_breaker(world):
    """The timer fires late because something else held the loop: that says nothing of the store."""
    world.store.delay_s = 2.0

    async def held_up():
        asked = asyncio.ensure_future(world.reads.read_user("u1"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        world.loop.now += 1.0  # as if a second of other work were done here
        with pytest.raises(Unreachable):
            await asked

    for _ in range(10):
        world.loop.run_until_complete(held_up())
    assert world.reads.breakers["online_store"].state == "closed"


def usual(two, reads=64):
    """As many reads as make the p95 known, 2 ms; each a little faster than those before it."""
    for n in range(reads):
        two.store.delay_s = 0.002 - 1e-5 * n
        two.ask(f"usual{n}")
    assert two.reads.counts["hedged"] == 0


def test_a_read_past_the_p95_is_asked_of_the_replica_too_and_the_first_answer_counts(two):
    usual(two)
    two.store.delay_s = 0.014
    began = two.loop.time()
    state = two.ask("slow")[0]
    assert state.user_id == "slow"
    assert two.loop.time() - began == pytest.approx(0.003, abs=2e-4)
    assert (two.reads.counts["hedged"], two.reads.counts["replica_won"], two.store.under_way) == (1, 1, 0)


def test_a_store_that_is_slow_for_everybody_is_not_asked_for_twice_as_much(two):
    usual(two)
    two.store.delay_s = two.replica.delay_s = 0.010
    before = two.store.asked.total()
    for n in range(300):
        two.ask(f"slow{n}")
    assert two.store.asked.total() - before == 300
    assert two.replica.asked.total() <= 0.1 * 300 + 5


def test_a_primary_that_is_away_is_passed_over_for_the_replica(two):
    two.store.error = Unreachable("away")
    for n in range(40):
        assert two.ask(f"u{n}")[0].user_id == f"u{n}"
    assert two.reads.breakers["online_store"].state == "open"
    assert two.store.asked.total() == 5
    two.replica.error = Unreachable("away too")
    answers = [two.ask(f"v{n}")[0] for n in range(10)]
    assert all(isinstance(a, Unreachable) for a in answers)
    assert two.replica.asked.total() == 45
    two.store.error = None
    two.pass_time(31)
    assert two.ask("back")[0].user_id == "back"


@given(st.lists(st.booleans(), max_size=400))
@settings(deadline=None)
def test_hedges_are_never_more_than_their_share_and_a_burst(wanted):
    budget = HedgeBudget(share=0.1, burst=5.0)
    hedged = 0
    for reads, want in enumerate(wanted, 1):
        budget.earn()
        hedged += want and budget.take()
        assert hedged <= 1 + 0.1 * reads + 1e-9


@given(st.lists(st.floats(0, 1), min_size=32, max_size=300))
@settings(deadline=None)
def test_the_p95_is_one_of_the_last_reads_with_about_a_twentieth_above_it(seconds):
    p95 = P95()
    for n, one in enumerate(seconds, 1):
        p95.add(one)
        if n < 32:
            assert p95.seconds is None
        elif (n - 32) % 16 == 0:
            last = sorted(seconds[max(0, n - 128) : n])
            assert p95.seconds == last[int(0.95 * (len(last) - 1))]


def test_a_store_on_this_disk_has_a_breaker_and_nothing_more(tmp_path):
    store = Store(0)
    now = [0.0]
    reads = LocalReads(store, Breaker(dependency(30.0)), clock=lambda: now[0])
    assert isinstance(user_reads(Settings(home=tmp_path), store), LocalReads)
    assert asyncio.run(reads.read_user("u1")).user_id == "u1"
    store.error = OSError("disk")
    for _ in range(5):
        with pytest.raises(OSError, match="disk"):
            asyncio.run(reads.read_user("u1"))
    store.error = None
    with pytest.raises(Unreachable, match="left alone"):
        asyncio.run(reads.read_user("u1"))
    assert store.asked.total() == 6
    now[0] = 30.1
    for _ in range(3):
        asyncio.run(reads.read_user("u1"))
    assert reads.breakers["online_store"].state == "closed"


class AnyOrder(RuleBasedStateMachine):
    """Whatever the stores do: bounds hold, and no answer is older than 500 ms or the user's last event here."""

    @initialize(replica=st.booleans(), most=st.integers(1, 6))
    def begin(self, replica, most):
        self.world = World(replica=replica, most=most)
        self.most = most
        self.newest = Counter()
        self.changed_at: dict[str, float] = {}

    def teardown(self):
        if hasattr(self, "world"):
            self.world.pass_time(5)
            assert self.world.reads.reading == 0
            self.world.loop.close()

    @rule(which=st.sampled_from(["store", "replica"]), delay_s=st.sampled_from([0.0, 0.001, 0.01, 2.0]))
    def slower_or_faster(self, which, delay_s):
        if (store := getattr(self.world, which)) is not None:
            store.delay_s = delay_s

    @rule(which=st.sampled_from(["store", "replica"]), away=st.booleans())
    def away_or_back(self, which, away):
        if (store := getattr(self.world, which)) is not None:
            store.error = Unreachable("away") if away else None

    @rule(seconds=st.sampled_from([0.001, 0.1, 0.6, 31.0]))
    def time_goes(self, seconds):
        self.world.pass_time(seconds)

    @rule(user=st.sampled_from("abc"), here=st.booleans())
    def an_event(self, user, here):
        """Of this worker, which forgets what it had read, or of another, which this one does not hear of."""
        self.newest[user] += 1
        for store in filter(None, (self.world.store, self.world.replica)):
            store.version[user] = self.newest[user]
        if here:
            self.world.reads.forget(user)
            self.changed_at[user] = -1.0
        else:
            self.changed_at[user] = self.world.loop.time()

    @rule(users=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12), wait_s=st.sampled_from([0.002, 0.02]))
    def ask(self, users, wait_s):
        began = self.world.loop.time()
        for user, answer in zip(users, self.world.ask(*users, wait_s=wait_s), strict=True):
            if not isinstance(answer, UserState):
                continue
            assert answer.user_id == user
            if began - self.changed_at.get(user, -1.0) > 0.5 or self.changed_at.get(user) == -1.0:
                assert answer.last[0].timestamp_us == self.newest[user]
        assert self.world.loop.time() - began <= wait_s + 1e-9

    @invariant()
    def bounds_hold(self):
        if not hasattr(self, "world"):
            return
        assert self.world.reads.reading <= self.most
        assert self.world.store.most <= self.most
        assert self.world.replica is None or self.world.replica.most <= self.most
        counts = self.world.reads.counts
        assert counts["hedged"] <= 1 + 0.1 * counts["read"] + 1e-9


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase
