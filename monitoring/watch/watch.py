"""The watch: takes the lease, starts what is due, keeps what was found, tells what must be told, asks for trainings.

Everything that matters is in the control database before it is acted on. Two watches may run; one leads.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from contracts.errors import Refused, StreamRecError
from monitoring.alerts import outbox
from monitoring.alerts.channels.base import Channel, Message
from monitoring.retraining import history
from monitoring.retraining.decide import Ruling, decide
from monitoring.watch.due import due
from monitoring.watch.running import RETRAIN, RETRAIN_LATE_S, Finished, Job, Runner, check_job
from monitoring.watch.schema import Schema
from monitoring.watch.state import DOCUMENT, WatchState, absorbed, state_from
from registry.control.documents import Documents
from registry.control.store import Conflict, Lease

log = logging.getLogger("streamrec.watch")

LEASE_S = 15.0
RENEW_US = 5_000_000  # a renewal is a write that is synced: not at each round
# Of a round, in which no send begins later; a send takes 3 s at most (`channels/base.py`). With RENEW_US, 11 s of the
# lease's 15: whoever tells still leads.
TELL_US = 3_000_000
ASK_US = 60_000_000  # between two looks at whether to train
ACT = ("-m", "cli", "monitor", "retrain-check", "--act", "--json")


@dataclass(frozen=True, slots=True)
class Live:
    """Who answers now. bentos: the champion first. release: id of the one under way. rankers: Bento → the version of
    its ranker, as signals name it (`streamrec-ranking/7`)."""

    bentos: Sequence[str] = ()
    release: str = ""
    rankers: Mapping[str, str] = field(default_factory=dict)

    @property
    def champion(self) -> str:
        return self.bentos[0] if self.bentos else ""

    def names(self, *bentos: str) -> frozenset[str]:
        """How signals of these Bentos, and of the service as a whole, name what they mean."""
        return frozenset({"", *bentos, *(self.rankers[b] for b in bentos if b in self.rankers)})


@dataclass(frozen=True, slots=True)
class Tick:
    """What a round came to. state None: another watch leads, or the database is away."""

    leading: bool
    state: WatchState | None = None
    ruling: Ruling | None = None
    runs: Sequence[history.Run] = ()
    started: Sequence[Job] = ()
    problems: Mapping[str, str] = field(default_factory=dict)


class Watch:
    """
    Args:
        live: asked each round. schema: that of a Bento's name, read anew each round so that a changed file counts.
        channels: by name; each is told everything.
    """

    def __init__(
        self,
        documents: Documents,
        live: Callable[[], Live],
        schema: Callable[[str], Schema],
        runner: Runner,
        channels: Sequence[Channel],
        *,
        clock_us: Callable[[], int],
        holder: str,
        retrain: bool = True,
    ) -> None:
        self._documents, self._live, self._schema = documents, live, schema
        self._runner = runner
        self._channels = {channel.name: channel for channel in channels}
        self._clock_us, self._holder, self._retrain = clock_us, holder, retrain
        self._lease: Lease | None = None
        self._held_us: int | None = None  # when it was last asked for
        self._ended: list[Finished] = []  # not in the database yet
        self._said: dict[str, str] = {}
        self._asked_us: int | None = None
        self._ruling: Ruling | None = None

    def tick(self) -> Tick:
        """One round; it waits for no check and no training, and a few seconds for a channel at most."""
        now_us = self._clock_us()
        problems: dict[str, str] = {}
        try:
            if self._held_us is None or not 0 <= now_us - self._held_us < RENEW_US:
                self._lease = self._documents.acquire(self._holder, LEASE_S, now_us)
                self._held_us = now_us
            if self._lease is None:
                self._stand_by()
                return Tick(leading=False)
            return self._lead(self._lease, now_us, problems)
        except Conflict:  # another leads, or a command moved it: it is read again in the next round
            self._held_us = None
            return Tick(leading=False, problems=problems)
        except StreamRecError as error:
            problems["control database"] = error.message
            return Tick(leading=False, problems=self._warned(problems))

    def stop(self) -> None:
        """End what runs, and give the lease back."""
        self._runner.stop()
        if self._lease is not None:
            try:
                self._documents.release_lease(self._lease)
            except StreamRecError as error:
                log.warning("the lease could not be given back: %s", error.message)

    def _lead(self, lease: Lease, now_us: int, problems: dict[str, str]) -> Tick:
        live = self._live()
        schema = self._schema(live.champion)
        version, document = self._documents.read(DOCUMENT)
        state = self._readable(document, problems)
        self._ended += self._runner.poll()
        after = absorbed(
            state,
            self._ended,
            schema,
            list(self._channels),
            now_us,
            live=live.names(*live.bentos),
            rankers=live.rankers,
        )
        if after.as_json() != document:
            self._documents.write(DOCUMENT, version, after.as_json(), lease)
            version += 1
        for finished in self._ended:
            if finished.problem:
                log.warning("the check %s of %s %s", finished.job.check, finished.job.bento or "all", finished.problem)
        self._ended = []
        after = self._deliver(after, version, lease, now_us, problems)
        runs = history.runs_of(self._documents)
        started = self._start(after, live, schema, runs, now_us)
        started += self._consider(after, live, schema, runs, now_us)
        return Tick(True, after, self._ruling, runs, started, self._warned(problems))

    def _readable(self, document: Mapping[str, object], problems: dict[str, str]) -> WatchState:
        try:
            return state_from(document)
        except (KeyError, TypeError, ValueError) as error:
            # Of another version: what is in breach is found again by the next checks, rather than nobody looking.
            problems["state"] = f"the kept alerts cannot be read and begin anew: {error!r}"
            return WatchState()

    def _deliver(
        self, state: WatchState, version: int, lease: Lease, now_us: int, problems: dict[str, str]
    ) -> WatchState:
        """Each entry is struck off as soon as it was told: a watch that dies here tells one again, by the same key."""
        blocked: set[str] = set()
        for entry in outbox.due(state.outbox, now_us):
            name, key = entry["channel"], outbox.key_of(entry)
            if name in blocked:
                continue
            if not 0 <= self._clock_us() - now_us < TELL_US:  # the rest in the next round, with a fresh lease
                break
            outcome, problem = self._send(entry)
            if outcome == "failed":
                blocked.add(name)
            if problem:
                problems[f"channel {name}"] = problem
            waits = outbox.after(entry, outcome, now_us)
            left = [waits if outbox.key_of(other) == key else other for other in state.outbox]
            state = replace(state, outbox=[other for other in left if other is not None])
            if waits is None and outcome != "sent":
                log.error("%s was never told of %s: %s", name, key, problem)
                state = replace(state, given_up={**state.given_up, name: state.given_up.get(name, 0) + 1})
            version = self._documents.write(DOCUMENT, version, state.as_json(), lease)
        return state

    def _send(self, entry: outbox.Entry) -> tuple[outbox.Outcome, str]:
        """What became of it, and why it was not told."""
        channel = self._channels.get(entry["channel"])
        if channel is None:  # one that is no longer set up is told no more
            return "sent", ""
        try:
            channel.send(Message(**entry["message"]))
        except Refused as error:
            return "refused", error.message
        except (StreamRecError, OSError) as error:
            return "failed", str(error)
        return "sent", ""

    def _start(
        self, state: WatchState, live: Live, schema: Schema, runs: Sequence[history.Run], now_us: int
    ) -> list[Job]:
        started = []
        for name, bento in due(schema, state.looks, live.bentos, now_us):
            ended = [_short(run) for run in runs if run["state"] in ("done", "failed")]
            job = check_job(name, bento, now_us, ended if name == "freshness" else ())
            if self._runner.start(job):
                started.append(job)
        return started

    def _consider(
        self, state: WatchState, live: Live, schema: Schema, runs: Sequence[history.Run], now_us: int
    ) -> list[Job]:
        """Ask the policy; the command that acts asks it again, with the data, and alone decides."""
        if self._asked_us is not None and 0 <= now_us - self._asked_us < ASK_US:
            return []
        self._asked_us = now_us
        if not live.champion or self._runner.busy(RETRAIN):
            return []
        known = [s for s in state.signals if s.model in live.names(live.champion)]
        self._ruling = decide(schema.retraining, known, runs, now_us, release_under_way=live.release)
        if self._ruling.answer != "yes" or not self._retrain:
            return []
        log.info("retraining: %s", self._ruling.why)
        job = Job(RETRAIN, live.champion, now_us, ACT, RETRAIN_LATE_S)
        return [job] if self._runner.start(job) else []

    def _stand_by(self) -> None:
        """Another leads: what we had started is its work now."""
        self._runner.stop()
        self._ended = []

    def _warned(self, problems: dict[str, str]) -> dict[str, str]:
        for part, problem in problems.items():
            if self._said.get(part) != problem:
                log.warning("%s: %s", part, problem)
        self._said = dict(problems)
        return problems


def _short(run: history.Run) -> dict[str, object]:
    return {name: run.get(name) for name in ("id", "state", "began_us", "problem")}
