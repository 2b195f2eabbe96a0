"""Which rung a request starts at when there is more to do than can be done in time. Pure: clock and load are arguments.

One thread computes, in order, so what a request will wait for it is the work that was let in before it and is not done:
the workload of a single server (Lindley 1952), one number that grows by the expected time of each request and falls
with the clock. The thread's real queue corrects it where the expectation was too low; where it was too high, that those
who were let in and have no answer yet cannot make more work than they are. Under overload what the event loop is late
by comes on top: both threads share a core, and a request has waited for the loop before it is looked at. It is looked
at before anything of it is done: what cannot be had in time is not begun.

    calm         `full` for all, while the wait is under what the deadline has room for: a burst is waited out
    overloaded   wait in service times   0 ── full ── full_wait ── simple_ranking ── simple_wait ── lists ──

It becomes overloaded when a full answer is not to be had within the deadline any more, or the wait is over
`patience_s`. Clients that ask again when they are answered can never make more than one service time each wait, however
often they ask, and where all of that fits the deadline there is no overload. Costs are in seconds of CPU, not of the
clock: what the loop and other processes take of the core is no work that this thread was offered. `stretch` says how
long the thread takes by the clock for a second of work, and the deadline is shortened by it.

It ends when the requests that come, were all of them ranked fully, would need less than `end` times the thread. While
it lasts the queue is kept about one service time long, whatever the load: who gets `full` gets it in time, and the
others get at once the best that is left, instead of all getting everything late (as CoDel has it: a burst may stand in
the queue, a standing queue may not). One `simple_ranking` at most between two `full`: else they would keep the queue
too long for any `full`.

Clients that ask again as soon as they are answered ask the more often the cheaper the answers are, so that an overload
would keep itself up. Only answers of the calm state tell whether it is still there: it is looked at after `look_s`, and
after twice that each time that it was. A look at an overload that is real makes a dozen requests or two wait as long as
the deadline allows, which is why looks are rare.

As long as the loop leaves time for a full answer, `full` keeps a share of the core: a flood of cheap answers, which
clients in a closed loop make of themselves, would else leave a thread idle that could rank for some of them.

Lists are answered on the event loop, so they are full when the loop is: when it comes late to whatever is due, tick
after tick, and there is the load for it. First fewer and fewer of them are read from the online store, which is most of
what a list costs; the others are what is at hand: the user's last slate, or what is popular. Only when the loop is late
all the same are some refused, the more the longer it lasts, and never all: to refuse costs the loop too, and clients
that come again at once could keep it late with nothing else. What counts is the least that it was late by in three
ticks (CoDel's standing delay), counted anew after each change: one long pause of the machine is no reason. As what it
is late by is the work of one round, the share shrinks by as many times as that is too much.
"""

from dataclasses import dataclass
from math import exp
from typing import Literal

from bentos.recommender.average import moved

Computed = Literal["full", "simple_ranking"]
Start = Literal["full", "simple_ranking", "lists"]
FIRST_GUESS_S: dict[Computed, float] = {"full": 5e-3, "simple_ranking": 2.5e-3}
RATE_S = 0.3  # time over which the rate of requests is averaged
LATENESS = 0.1  # weight of the newest tick of the loop
LOOPS = 3  # times that a full answer waits for the loop: when it comes, between its two jobs, and when it is made
TICKS = 3  # that a lateness must stand for, before anything is done about it
FEWER = 0.8  # a share shrinks to at most so much of itself
MORE = 0.02  # and grows by so much each tick: back within fifty
NEARLY_NONE = 0.05  # a share of lists to read below which only refusing helps


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """deadline_s: when a computed slate must be there. full_wait, simple_wait: in service times of a full request. end:
    offered work, in threads. kept: the share of the core that `full` has under overload, where it can be in time.
    thin_below: while overloaded, no deep ranking for a user of whose features a smaller share is there. Fewer lists are
    read while the loop is late by more than read_lag_s, with which a full answer is still in time, and more below half
    of it. Refusing grows above refuse_lag_s and shrinks below it; `never_refused` are let in at the worst."""

    patience_s: float = 0.1
    deadline_s: float = 0.145
    full_wait: float = 0.5
    simple_wait: float = 1.0
    end: float = 0.7
    kept: float = 0.2
    thin_below: float = 0.5
    read_lag_s: float = 0.03
    refuse_lag_s: float = 0.1
    never_refused: float = 0.1
    look_s: float = 8.0
    look_max_s: float = 64.0


class Admission:
    """Of one process, on its event loop. Times are `time.perf_counter()` seconds."""

    __slots__ = (
        "_cost_s",
        "_credit",
        "_full_at",
        "_late",
        "_let_in",
        "_look_at",
        "_looked",
        "_policy",
        "_rate",
        "_rest_s",
        "_seen",
        "_simple_given",
        "_then",
        "_work_s",
        "answered",
        "lag_s",
        "overloaded",
        "read",
    )

    def __init__(self, policy: AdmissionPolicy | None = None) -> None:
        self._policy = policy or AdmissionPolicy()
        self._cost_s = dict(FIRST_GUESS_S)
        self._work_s = 0.0  # as of `_then`
        self._then = 0.0
        self._let_in: dict[Computed, int] = {"full": 0, "simple_ranking": 0}  # without an answer yet
        self._rate = 0.0  # requests a second, as of `_seen`
        self._seen = 0.0
        self._look_at = 0.0  # while overloaded
        self._looked = float("-inf")
        self._rest_s = self._policy.look_s
        self._simple_given = False  # since the last `full`
        self._full_at = float("-inf")  # when the last one was let in
        self._credit = {"answered": 0.0, "read": 0.0}  # towards the next one, while a share of them is not
        self.answered = 1.0  # share of the requests that is not refused
        self.read = 1.0  # share of the lists that is read from the store
        self.lag_s = 0.0
        self._late: tuple[float, ...] = ()  # the last `TICKS` ticks, since a share was made smaller
        self.overloaded = False

    def start(self, now: float, *, left_s: float, queued_s: float, stretch: float = 1.0) -> Start | None:
        """The rung to start at, None to refuse. It counts as work from `let_in` to `done`.

        Args:
            left_s: until the request's deadline. queued_s: work that really waits for the compute thread. stretch:
                how long the thread takes by the clock for a second of work.
        """
        policy, cost = self._policy, self._cost_s
        work_s, full_s = self.wait_s(now, queued_s), cost["full"]
        self._rate = self._rate * exp(-max(now - self._seen, 0.0) / RATE_S) + 1.0 / RATE_S
        self._seen = max(now, self._seen)
        left_s /= stretch
        patience_s = max(0.0, min(policy.patience_s, policy.deadline_s / stretch - full_s))
        self._tell_state(now, work_s, patience_s)
        if not self._among("answered", self.answered):
            return None
        wait_s, full_wait_s, simple_wait_s = work_s, patience_s, patience_s
        its_turn = False
        if self.overloaded:
            late_s = self.lag_s / stretch
            in_time = LOOPS * late_s + full_s <= left_s
            its_turn = in_time and work_s <= 0.0 and now - self._full_at >= full_s / policy.kept
            wait_s += late_s
            full_wait_s = min(policy.full_wait * full_s, patience_s)
            simple_wait_s = min(policy.simple_wait * full_s, patience_s)
        start: Start = "lists"
        if its_turn or (wait_s <= full_wait_s and wait_s + full_s <= left_s):
            start = "full"
            self._full_at = now
            self._simple_given = False
        elif wait_s <= simple_wait_s and wait_s + cost["simple_ranking"] <= left_s:
            if not (self.overloaded and self._simple_given):
                start = "simple_ranking"
            self._simple_given = True
        return start

    def reads(self) -> bool:
        """Whether this one of the lists is to be read from the store; else what is at hand has to do."""
        return self._among("read", self.read)

    def _among(self, which: str, share: float) -> bool:
        """Whether this one is of the share, which is spread evenly."""
        # A loop that is late without load was held up by something else: to do less would not help it.
        if share >= 1.0 or self.load <= 1.0:
            return True
        whole, self._credit[which] = divmod(self._credit[which] + share, 1.0)
        return whole >= 1.0

    def _tell_state(self, now: float, wait_s: float, patience_s: float) -> None:
        policy = self._policy
        if self.overloaded:
            if self.load < policy.end:
                self.overloaded = False
            elif now >= self._look_at:
                self.overloaded = False
                self._looked, self._rate = now, 0.0  # that rate was of cheap answers
        if not self.overloaded and wait_s > patience_s:
            self.overloaded = True
            self._rate = max(self._rate, 1.0 / self._cost_s["full"])  # a wait tells it sooner than the average
            in_vain = now - self._looked <= self._rest_s
            self._rest_s = min(2 * self._rest_s, policy.look_max_s) if in_vain else policy.look_s
            self._look_at = now + self._rest_s

    def let_in(self, start: Computed) -> None:
        """A request of this rung goes to the compute thread."""
        self._let_in[start] += 1
        self._work_s += self._cost_s[start]

    def done(self, start: Computed) -> None:
        """It has its answer, or nobody waits for it any more."""
        self._let_in[start] -= 1

    def tick(self, late_s: float) -> None:
        """How late the event loop was for something that was due, asked some hundred times a second."""
        policy = self._policy
        self.lag_s += LATENESS * (late_s - self.lag_s)
        self._late = (*self._late[1 - TICKS :], late_s)
        if len(self._late) < TICKS:
            return
        standing_s = min(self._late)
        if standing_s > policy.read_lag_s and self.read >= NEARLY_NONE:
            self.read *= min(FEWER, policy.read_lag_s / standing_s)
            self._late = ()
        elif standing_s > policy.refuse_lag_s:
            self.answered *= min(FEWER, policy.refuse_lag_s / standing_s)
            self.answered = max(self.answered, policy.never_refused)
            self._late = ()
        elif self.answered < 1.0:
            self.answered = min(self.answered + MORE, 1.0)
        elif standing_s < policy.read_lag_s / 2:  # not before all are answered
            self.read = min(self.read + MORE, 1.0)

    def thin(self, quality: float) -> bool:
        """True: the deep ranker is not worth its time for a user of whose features so small a share is there.

        quality: features of the user that have a value of the right age / all of them.
        """
        return self.overloaded and quality < self._policy.thin_below

    def learn(self, start: Computed, seconds: float) -> None:
        """What one answer of this rung took of the compute thread's CPU."""
        self._cost_s[start] = moved(self._cost_s[start], seconds)

    def wait_s(self, now: float, queued_s: float) -> float:
        """What a request that comes now will wait for the compute thread."""
        most_s = sum(n * self._cost_s[start] for start, n in self._let_in.items())
        self._work_s = max(min(self._work_s - max(now - self._then, 0.0), most_s), queued_s, 0.0)
        self._then = max(now, self._then)
        return self._work_s

    def cost_s(self, start: Computed) -> float:
        return self._cost_s[start]

    @property
    def load(self) -> float:
        """Threads that it would take to rank all requests fully, as they came of late."""
        return self._rate * self._cost_s["full"]
