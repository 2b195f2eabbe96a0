"""Releases on a virtual clock: the real controller, machine, gates, assignment, tally and statistics, without sockets.

Only users and Bentos are played. A tick is a quarter of a minute right after a change and up to five minutes later on;
the controller looks once a tick, so that a real one, which looks every second, rolls back sooner.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bentos.gateway.hashing import release_arms
from contracts.measurements import Snapshot
from contracts.routing import ReleaseRoute, Target
from contracts.serving import DEGRADATIONS
from monitoring.evidence.columns import (
    CANDIDATE,
    CHAMPION,
    CONTROL,
    NO_RUNG,
    SHADOW,
    Acts,
    Answers,
    Bools,
    Calls,
    Ragged,
)
from monitoring.evidence.snapshot import snapshot
from monitoring.evidence.tally import Tally
from monitoring.simulation.behaviour import SCENARIOS, Behaviour
from monitoring.simulation.policies import SIMULATED, text_of
from monitoring.simulation.population import Floats, Ints, Population, Visitors, population
from registry.control.memory import MemoryStore
from registry.control.store import Actor
from registry.controller import Controller
from registry.drivers.fake import FakeDriver
from registry.readiness import AllReady
from registry.reconcile import NoAliases
from registry.releases import machine
from registry.releases.policy import Policy
from registry.releases.routing import MemoryWriter
from registry.releases.values import Release, Start

MINUTE_US = 60_000_000
BEGIN_US = 1_767_225_600_000_000  # 2026-01-01
OLD, NEW = Target(bento="streamrec:champion"), Target(bento="streamrec:candidate")
OPERATOR = Actor("simulation", "admin")
ARMS = ("candidate", "control", "champion")

MEDIAN_MS, SIGMA = 20.0, 0.45  # of the champion: p99 57 ms
SHARE_MS = 100.0  # of the deadline, for the assigned variant: past it the champion is asked
CHAMPION_ERRORS = 0.0005
OPENS_AT, PROBES_A_MINUTE = 0.5, 6.0  # of the breaker: share of failures, calls that it lets through
N_ITEMS = 1_000_000
USERS = 50_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one release ended. minutes: of virtual time since its start.

    users_met: distinct users who were sent to the candidate. users_harmed: of these, who had a call that failed, was
    late or brought nothing (and an answer of the champion instead), or a slate of less worth. failed_requests: no
    answer from anyone.
    """

    scenario: str
    seed: int
    end: str  # promoted, rolled_back, paused, or the state at the end of the time
    step: str
    minutes: float
    users_met: int
    users_harmed: int
    requests: int
    requests_to_candidate: int
    failed_requests: int
    reason: str
    reached: dict[str, float] = field(default_factory=dict)  # step → minute


class Simulation:
    """One release. `run` it once."""

    def __init__(
        self,
        scenario: str,
        seed: int,
        people: Population,
        policy: Policy = SIMULATED,
        *,
        behaviour: Behaviour | None = None,
    ) -> None:
        self._scenario, self._seed = scenario, seed
        self._behaviour = behaviour or SCENARIOS[scenario]
        self._people, self._policy = people, policy
        self._visitors = Visitors(people)
        self._rng = np.random.default_rng([seed, 2])
        self._now_us = BEGIN_US
        self._store, self._writer = MemoryStore(), MemoryWriter()
        self._controller = Controller(
            self._store,
            FakeDriver(),
            AllReady(),
            self._evidence,
            self._writer,
            NoAliases(),
            clock_us=lambda: self._now_us,
            holder="simulation",
            note_s=86_400,
        )
        self._tally: Tally | None = None
        self._counted: tuple[str, int] | None = None
        self._routed: ReleaseRoute | None = None
        self._arms: Ints = np.full(len(people), CHAMPION)
        self._met = np.zeros(len(people), bool)
        self._harmed = np.zeros(len(people), bool)
        self._requests = self._to_candidate = self._failed = 0
        self._with_users_us: int | None = None
        self._failures = 0.0  # recent share of the candidate's calls

    def run(self, max_minutes: float = 20_160) -> Outcome:
        self._begin()
        began_us = self._now_us
        reached: dict[str, float] = {}
        changed_us = began_us
        while True:
            self._controller.tick()
            release = self._release
            step = release.current.name if release.current else "created"
            if step not in reached:
                reached[step] = (self._now_us - began_us) / MINUTE_US
                changed_us = self._now_us
            over = (self._now_us - began_us) / MINUTE_US >= max_minutes
            if release.state in ("promoted", "rolled_back", "paused") or over:
                break
            minutes = float(np.clip((self._now_us - changed_us) / MINUTE_US / 8, 0.25, 5.0))
            self._serve(release, minutes)
            self._now_us += int(minutes * MINUTE_US)
        return Outcome(
            self._scenario,
            self._seed,
            release.state,
            step,
            (self._now_us - began_us) / MINUTE_US,
            int(self._met.sum()),
            int(self._harmed.sum()),
            self._requests,
            self._to_candidate,
            self._failed,
            release.reason,
            reached,
        )

    @property
    def _release(self) -> Release:
        release = self._store.load().release
        assert release is not None  # noqa: S101 — `_begin` has started it
        return release

    def _begin(self) -> None:
        """The champion is promoted after its smoke test; then the candidate's release starts."""
        for target, id_ in ((OLD, "first"), (NEW, f"{self._scenario}-{self._seed}")):
            before = self._store.load()
            start = Start(id=id_, candidate=target, policy_text=text_of(self._policy), policy=self._policy)
            after = machine.apply(before, start, self._now_us, OPERATOR.name)
            self._store.commit(
                before, after, actor=OPERATOR, action="release.start", subject=id_, detail={}, now_us=self._now_us
            )
            if target is OLD:
                while self._store.load().champion != OLD:
                    self._controller.tick()
                    self._now_us += MINUTE_US

    def _evidence(self, release: Release, now_us: int) -> Snapshot:
        return snapshot(release, self._tally_of(release), now_us)

    def _tally_of(self, release: Release) -> Tally:
        if self._tally is None or self._counted != (release.id, release.since_us):
            self._tally = Tally(release.policy.metrics, release=release.id, since_us=release.since_us)
            self._counted = (release.id, release.since_us)
            for key, known in self._tally.columns.values.items():
                known.update({word: code for code, word in enumerate(self._people.words[key])})
        return self._tally

    def _serve(self, release: Release, minutes: float) -> None:
        """The visits of the next minutes, by the table that is in force."""
        table = self._writer.last()
        route = table.release if table else None
        if route is not None and route != self._routed:
            names = release_arms(route, self._people.ids)
            self._arms = np.select([names == "candidate", names == "control"], [CANDIDATE, CONTROL], CHAMPION)
            self._routed = route
        users = self._visitors.draw(self._rng, minutes)
        self._requests += len(users)
        tally = self._tally_of(release)
        if route is not None and route.shadow:
            mirrored = users[self._rng.random(len(users)) < route.shadow / 100]
            tally.add_calls(self._calls(mirrored, np.full(len(mirrored), SHADOW), minutes)[0], self._now_us)
            if "new_user" in (release.current.panel if release.current else {}):
                new = int((self._people.of("tenure", "new")[mirrored]).sum())
                tally.panel["new_user"] = tally.panel.get("new_user", 0) + new
        if route is None or not route.weight:
            return
        self._with_users_us = self._with_users_us or self._now_us
        users = users[self._arms[users] != CHAMPION]  # the champion's are nobody's evidence
        self._compare(tally, users, self._arms[users], minutes)

    def _compare(self, tally: Tally, users: Ints, arms: Ints, minutes: float) -> None:
        calls, answered, tried = self._calls(users, arms, minutes)
        mine = arms == CANDIDATE
        self._to_candidate += int((mine & tried).sum())
        self._met[users[mine & tried]] = True
        good = answered & (calls.n_items > 0)
        less = self._factor(users, mine) < 1
        self._harmed[users[mine & tried & (~good | less)]] = True
        # Whatever the assigned variant lacks the champion gives; that it fails too is the last resort's case.
        saved = self._rng.random(len(users)) >= CHAMPION_ERRORS
        self._failed += int((~good & ~saved & mine).sum())
        tally.add_calls(calls.where(tried), self._now_us)
        k = len(self._people.position)
        items = self._rng.integers(0, N_ITEMS, (len(users), k)).astype(np.uint32)
        answers = Answers(
            calls.time_us,
            calls.request,
            calls.unit,
            arms,
            np.zeros(len(users), np.int64),
            Ragged(np.full(len(users), k), items.ravel()),
            calls.slices,
        )
        tally.add_answers(answers, self._now_us)
        if "click" in tally.names:
            tally.add_acts(self._clicks(tally, answers, users, items, mine & good), self._now_us)

    def _clicks(
        self, tally: Tally, answers: Answers, users: Ints, items: NDArray[np.uint32], by_candidate: Bools
    ) -> Acts:
        chance = self._people.taste[users] * np.where(by_candidate, self._factor(users, by_candidate), 1.0)
        clicked = self._rng.random(items.shape) < chance[:, None] * self._people.position
        row, place = np.nonzero(clicked)
        return Acts(
            answers.time_us[row] + self._rng.integers(1, MINUTE_US, len(row)),
            np.ones(len(row), bool),
            answers.request[row],
            answers.unit[row],
            items[row, place],
            np.full(len(row), tally.names["click"]),
            np.zeros(len(row)),
        )

    def _factor(self, users: Ints, by_candidate: Bools) -> Floats:
        """On the chance of a click, of what the candidate recommends."""
        behaviour = self._behaviour
        factor = np.where(by_candidate, behaviour.click_factor, 1.0)
        if behaviour.biased_country:
            factor[by_candidate & self._people.of("country", behaviour.biased_country)[users]] *= (
                behaviour.biased_factor
            )
        return factor

    def _calls(self, users: Ints, arms: Ints, minutes: float) -> tuple[Calls, Bools, Bools]:
        """What the assigned variants made of these requests; whether they answered, and whether they were asked."""
        rng, n = self._rng, len(users)
        theirs = (arms == CANDIDATE) | ((arms == SHADOW) & self._behaviour.seen_by_shadow)
        ms = rng.lognormal(np.log(MEDIAN_MS), SIGMA, n) * np.where(theirs, self._behaviour.latency_factor, 1.0)
        failed = rng.random(n) < np.where(theirs, self._behaviour.error_rate + CHAMPION_ERRORS, CHAMPION_ERRORS)
        failed |= theirs & self._broken(users)
        tried = self._let_through(arms, failed | (ms > SHARE_MS), minutes)
        late = ~failed & (ms > SHARE_MS)
        ok = ~failed & ~late
        empty = np.zeros(n, bool)
        if self._behaviour.empty_country:
            empty = theirs & self._people.of("country", self._behaviour.empty_country)[users]
        shadow = arms == SHADOW
        calls = Calls(
            self._now_us + np.sort(rng.integers(0, int(minutes * MINUTE_US), n)),
            rng.integers(1, 1 << 63, n).astype(np.uint64),
            users.astype(np.uint64),
            arms,
            ok,
            np.where(late, np.inf, ms),
            np.where(ok, DEGRADATIONS.index("full"), NO_RUNG),
            np.where(ok & ~empty, len(self._people.position), 0),
            np.ones(n, bool),
            np.zeros(n),
            np.ones(n),
            np.where(shadow & ok, np.clip(rng.normal(0.8, 0.1, n), -1, 1), np.nan),
            np.where(shadow & ok, np.clip(rng.normal(0.4, 0.1, n), 0, 1), np.nan),
            np.full(n, np.nan),  # the distance of the scores is not played
            {key: codes[users] for key, codes in self._people.context.items()},
        )
        return calls, ok & tried, tried

    def _broken(self, users: Ints) -> Bools:
        """Calls that fail whatever chance says."""
        behaviour, since_us = self._behaviour, self._with_users_us
        dies_us = (behaviour.dies_at_minute or 0.0) * MINUTE_US
        if behaviour.dies_at_minute is not None and since_us is not None and self._now_us - since_us >= dies_us:
            return np.ones(len(users), bool)
        if behaviour.broken_country:
            return self._people.of("country", behaviour.broken_country)[users]
        return np.zeros(len(users), bool)

    def _let_through(self, arms: Ints, bad: Bools, minutes: float) -> Bools:
        """The breaker: once half of the candidate's calls are bad, only probes get through until they are good."""
        mine = np.flatnonzero(arms == CANDIDATE)
        tried = np.ones(len(arms), bool)
        if self._failures >= OPENS_AT and len(mine):
            tried[mine[max(1, int(PROBES_A_MINUTE * minutes)) :]] = False
        elif len(mine) > 20 and bad[mine].mean() >= OPENS_AT:  # it opens after the first 20
            tried[mine[20:]] = False
        seen = bad[mine[tried[mine]]]
        if len(seen):
            self._failures = float(seen.mean())
        return tried


def simulate(
    scenario: str, seeds: range, *, users: int = USERS, policy: Policy = SIMULATED, max_minutes: float = 20_160
) -> list[Outcome]:
    """A run for each seed, each with a population of its own."""
    return [Simulation(scenario, seed, population(users, seed), policy).run(max_minutes) for seed in seeds]
