"""The controller: reads the control state and the evidence, decides, and writes the routing table.

One tick is straight through, one line a step. It may die at any point and be run again, by itself or by a second
controller: the control database is the truth, each change of it is a compare-and-swap under the lease, and everything
behind it (processes, routing table, MLflow aliases) follows from what is there. A tick does no I/O of its own.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from contracts.errors import Refused, StreamRecError, Unreachable
from contracts.measurements import MetricVerdict, Snapshot
from contracts.routing import BreakGlass, RoutingTable, Upstream
from registry.break_glass import adopt
from registry.control.store import Actor, Conflict, ControlStore, Lease
from registry.drivers.base import Driver
from registry.readiness import Probe
from registry.reconcile import Aliases
from registry.releases import machine
from registry.releases.gates import decide
from registry.releases.routing import compile_table, table_problems
from registry.releases.values import Command, ControlState, Note, Promote, Release
from registry.rounds import SECOND, Report, Reporter, Tick, due

log = logging.getLogger("streamrec.controller")

CONTROLLER = Actor("controller", "releaser")
STANDBY_S = 0.5  # between a second controller's tries for the lease
CHECK_TABLE_S = 2.0  # between looks at the file itself: someone may have removed or replaced it
LINGER_S = 10.0  # a Bento stays up this long after the last table that named it: gateways are still finishing with it

Evidence = Callable[[Release, int], Snapshot | None]


class Writer(Protocol):
    """`RoutingWriter`, or its fake."""

    def last(self) -> RoutingTable | None: ...

    def write(self, table: RoutingTable) -> None: ...

    def override(self) -> BreakGlass | None: ...


class Controller:
    """
    Args:
        evidence: of a release at a moment; None: nothing new yet. Asked every `evidence_s`.
        writer: of the routing table; its last one is read back, so that versions only grow.
        holder: who this is, for the lease of `ttl_s`.
        note_s: at most this often are changed verdicts without a change of state written to the audit.
        report: told what a `release status` wants to know, after each round that has news.
    """

    def __init__(
        self,
        store: ControlStore,
        driver: Driver,
        probe: Probe,
        evidence: Evidence,
        writer: Writer,
        aliases: Aliases,
        *,
        clock_us: Callable[[], int],
        holder: str,
        gateway_processes: int = 1,
        ttl_s: float = 5.0,
        evidence_s: float = 1.0,
        note_s: float = 60.0,
        report: Report | None = None,
    ) -> None:
        self._store = store
        self._driver = driver
        self._probe = probe
        self._evidence = evidence
        self._writer = writer
        self._aliases = aliases
        self._clock_us = clock_us
        self._holder = holder
        self._gateway_processes = gateway_processes
        self._ttl_us = int(ttl_s * SECOND)
        self._evidence_us = int(evidence_s * SECOND)
        self._note_us = int(note_s * SECOND)
        self._reporter = Reporter(report)

        self._lease: Lease | None = None
        self._asked_us: int | None = None  # for the lease
        self._last: RoutingTable | None = None  # as it lies in the file
        self._version = 0  # of the last table that was seen: a removed file does not set it back
        self._left_out: tuple[str, ...] = ()
        self._checked_us: int | None = None
        self._routed: tuple[Any, ...] | None = None
        self._named: dict[str, int] = {}  # Bento → when a table or the state last named it
        self._judged: tuple[Any, ...] = ()
        self._judged_us: int | None = None
        self._noted_us: int | None = None
        self._snapshot: Snapshot | None = None
        self._answering: frozenset[str] = frozenset()
        self._next = ""
        self._last_fault = ""

    def tick(self) -> Tick:
        """One round; never raises. What it could not do is in `problems`, and the next round tries again."""
        tick = Tick(self._clock_us())
        try:
            self._round(tick)
        except Conflict as error:
            tick.done.append(f"left to the next round: {error.message}")
            self._asked_us = None  # the lease may be what has moved
        except Unreachable as error:
            tick.problems["control database"] = error.message
            self._lease = self._asked_us = None
        except Exception as error:  # a fault of ours must not end the process that can roll back
            tick.problems["controller"] = self._fault("a round", error)
        self._reporter.say(tick)
        return tick

    def stop(self) -> None:
        """Give the lease back, so that a second controller need not wait for it."""
        lease, self._lease = self._lease, None
        if lease is not None:
            try:
                self._store.release_lease(lease)
            except StreamRecError as error:
                log.warning("the lease could not be given back: %s", error.message)

    def _round(self, tick: Tick) -> None:
        lease = self._lead(tick)
        if lease is None:
            return
        state = self._store.load()
        self._read_table(tick)
        state = self._adopt(tick, state, lease)
        self._ensure(tick, state)
        ready = self._look(tick, state)
        state = self._first_champion(tick, state, ready, lease)
        state = self._judge(tick, state, lease)
        state = self._expire(tick, state, lease)
        self._route(tick, state, ready, lease)
        self._reconcile(tick, state)
        tick.state = state
        snapshot = self._snapshot if state.release else None
        self._reporter.tell(tick, state, ready, lease, self._last, self._next, snapshot)

    def _lead(self, tick: Tick) -> Lease | None:
        """The lease, renewed three times in its life; None while another holds it."""
        every = self._ttl_us // 3 if self._lease else int(STANDBY_S * SECOND)
        if not due(self._asked_us, tick.now_us, every):
            tick.leading = self._lease is not None
            return self._lease
        before, self._lease = self._lease, None
        lease = self._store.acquire(self._holder, self._ttl_us / SECOND, tick.now_us)
        self._lease, self._asked_us = lease, tick.now_us
        tick.leading = lease is not None
        if lease and (before is None or before.epoch != lease.epoch):
            tick.done.append(f"lead as epoch {lease.epoch}")
            self._checked_us = self._routed = self._judged_us = None
        elif before and not lease:
            tick.done.append("another leads")
        return lease

    def _read_table(self, tick: Tick) -> None:
        """What lies in the file: versions go on from there, and a table that is not ours is written over."""
        if not due(self._checked_us, tick.now_us, int(CHECK_TABLE_S * SECOND)):
            return
        with self._reported_as(tick, "routing table"):
            last = self._writer.last()
            if last != self._last:
                self._last, self._routed = last, None
                self._version = max(self._version, last.version if last else 0)
            self._checked_us = tick.now_us

    def _adopt(self, tick: Tick, state: ControlState, lease: Lease) -> ControlState:
        """A break-glass order becomes a rollback in the database; the table that lists it ends the override. The file
        stays: to remove it might remove a newer order that was written since it was read."""
        try:
            order = self._writer.override()
        except (StreamRecError, OSError) as error:
            tick.problems["break-glass order"] = str(error)
            return state
        if order is None or order.id in state.adopted:
            return state
        try:
            after = adopt(state, order, tick.now_us)
        except Refused as error:  # it stays in force at the gateways
            tick.problems["break-glass order"] = error.message
            return state
        tick.done.append(f"adopt {order.id}")
        return self._store.commit(
            state,
            after,
            actor=CONTROLLER,
            action="release.adopt",
            subject=state.release.id if state.release else order.id,
            detail={"reason": order.reason, "order": order.model_dump(mode="json"), "by": order.actor},
            now_us=tick.now_us,
            lease=lease,
        )

    def _ensure(self, tick: Tick, state: ControlState) -> None:
        """All that the state wants up, and for a while what the last table named."""
        named = self._last.bentos if self._last else ()
        for bento in (*state.live, *named):
            self._named[bento] = tick.now_us
        self._named = {b: min(at, tick.now_us) for b, at in self._named.items() if tick.now_us - at < LINGER_S * SECOND}
        with self._reported_as(tick, "driver"):
            self._driver.ensure(tuple(dict.fromkeys((*state.live, *self._named))))

    def _look(self, tick: Tick, state: ControlState) -> Mapping[str, Upstream]:
        """Who is ready. A champion that no longer answers keeps the URLs it had: there is nobody else to send users to,
        and the gateways, who look themselves, use it again the moment it is back. So does a Bento that nobody has asked
        yet: a controller that takes over moves no user before it knows better."""
        known: Mapping[str, Upstream] = {}
        with self._reported_as(tick, "driver"):
            known = {bento: upstream for bento, upstream in self._driver.upstreams().items() if bento in state.live}
            tick.problems.update(self._driver.problems())
        readiness = self._probe.look(known)
        for bento, problem in readiness.problems.items():
            tick.problems.setdefault(bento, problem)
        ready = dict(readiness.ready)
        self._answering = frozenset(ready)
        before = self._last.bentos if self._last else {}
        champion = {state.champion.bento} if state.champion else set()
        for bento in (champion | readiness.unknown) & before.keys() - ready.keys():
            urls = tuple(url for url in before[bento].urls if bento not in known or url in known[bento].urls)
            if urls:
                ready[bento] = Upstream(urls=urls)
        return ready

    def _first_champion(
        self, tick: Tick, state: ControlState, ready: Mapping[str, Upstream], lease: Lease
    ) -> ControlState:
        """Nobody is champion yet: there is nothing to compare with, and a smoke test is what there can be."""
        release = state.release
        if state.champion is not None or release is None or release.state != "created":
            return state
        bento = release.candidate.bento
        if bento not in ready:
            tick.problems.setdefault(bento, "not up yet")
            return state
        wrong = self._probe.smoke(bento, ready[bento])
        if wrong is None:
            return state
        if wrong:
            tick.problems["smoke test"] = f"{bento}: {'; '.join(wrong)}"
            return state
        passed = MetricVerdict(name=machine.SMOKE, verdict="pass", reason="all its answers are whole slates")
        command = Promote(reason="first champion: its smoke test has passed", verdicts=(passed,))
        detail = {"reason": command.reason, "verdicts": [passed.model_dump(mode="json")]}
        return self._apply(tick, state, command, lease, detail)

    def _judge(self, tick: Tick, state: ControlState, lease: Lease) -> ControlState:
        """Evidence, verdicts, and the step that follows from them."""
        release = state.release
        if state.champion is None or release is None or not release.active:
            return state
        where = (release.id, release.state, release.step, release.since_us)
        if where == self._judged and not due(self._judged_us, tick.now_us, self._evidence_us):
            return state
        snapshot = self._measure(tick, release)
        if snapshot is None:
            return state
        self._judged, self._judged_us = where, tick.now_us
        answers = {bento: bento in self._answering for bento in state.live}
        self._snapshot = snapshot = snapshot.model_copy(update={"ready": answers})
        try:
            decision = decide(state, snapshot, tick.now_us)
        except Exception as error:  # no verdict holds the release, and must not hold up the table
            tick.problems["gates"] = self._fault("the gates", error)
            return state
        self._next = decision.next
        command: Command | None = decision.command
        if command is None:
            changed = _words(decision.verdicts) != _words(release.verdicts)
            # A person's `promote` is judged by them: the first of a step are noted at once.
            if not changed or (release.verdicts and not due(self._noted_us, tick.now_us, self._note_us)):
                return state
            self._noted_us = tick.now_us
            command = Note(reason=decision.reason, verdicts=decision.verdicts)
        detail = {
            "reason": decision.reason,
            "next": decision.next,
            "verdicts": [v.model_dump(mode="json") for v in decision.verdicts],
            # Through JSON text: there, what is not finite is null.
            "evidence": json.loads(snapshot.model_dump_json()),
        }
        return self._apply(tick, state, command, lease, detail)

    def _measure(self, tick: Tick, release: Release) -> Snapshot | None:
        """None: nothing new yet. Evidence that cannot be had is a snapshot too, and gates call it inconclusive."""
        try:
            snapshot = self._evidence(release, tick.now_us)
        except Exception as error:  # of a reader of logs, of SQL that an operator wrote
            snapshot = no_evidence(release, tick.now_us, f"{type(error).__name__}: {error}")
        if snapshot is not None and (snapshot.release, snapshot.step) != (release.id, release.step):
            return None  # of a step that is over
        if snapshot is not None and snapshot.problem:
            tick.problems["evidence"] = snapshot.problem
        return snapshot

    def _expire(self, tick: Tick, state: ControlState, lease: Lease) -> ControlState:
        after = machine.expire(state, tick.now_us)
        if after == state:
            return state
        gone = [w.target.bento for w in state.warm if w not in after.warm]
        tick.done.append(f"cool {', '.join(gone)}")
        return self._store.commit(
            state,
            after,
            actor=CONTROLLER,
            action="release.cool",
            subject=state.release.id if state.release else "-",
            detail={"reason": "its time to stay warm is over", "bentos": gone},
            now_us=tick.now_us,
            lease=lease,
        )

    def _route(self, tick: Tick, state: ControlState, ready: Mapping[str, Upstream], lease: Lease) -> None:
        """Write the table, when another follows from the state than the one in the file."""
        key = (state.version, lease.epoch, ready)
        if key != self._routed:
            self._left_out = table_problems(state, ready)
        for number, problem in enumerate(self._left_out, start=1):
            tick.problems[f"table ({number})"] = problem
        if key == self._routed:
            return
        last = self._last
        if older := _older_than(last, state, lease):
            self._asked_us = None  # is the lease really ours? ask again
            tick.problems["routing table"] = older
            return
        table = compile_table(
            state,
            ready,
            epoch=lease.epoch,
            version=self._version + 1,
            written_at=datetime.fromtimestamp(tick.now_us / SECOND, UTC).isoformat(timespec="milliseconds"),
            gateway_processes=self._gateway_processes,
        )
        if last is not None and last.epoch == lease.epoch and _content(last) == _content(table):
            self._routed = key
            return
        if not 0 <= self._clock_us() - (self._asked_us or 0) < self._ttl_us:
            self._asked_us = None
            tick.problems["lease"] = "it ran out before the table was written"
            return
        with self._reported_as(tick, "routing table"):
            self._writer.write(table)
            self._last, self._routed, tick.wrote = table, key, table
            self._version = table.version
            tick.done.append(f"table {table.name}")

    def _reconcile(self, tick: Tick, state: ControlState) -> None:
        release = state.release
        challenger = release.candidate.bento if release and release.active and release.kind == "bento" else None
        champion = state.champion.bento if state.champion else None
        problem = self._aliases.want(champion, challenger if challenger != champion else None, tick.now_us)
        if problem:
            tick.problems["MLflow aliases"] = problem

    def _apply(
        self, tick: Tick, state: ControlState, command: Command, lease: Lease, detail: dict[str, Any]
    ) -> ControlState:
        release = state.release
        assert release is not None  # noqa: S101 — both callers have looked
        try:
            after = machine.apply(state, command, tick.now_us, CONTROLLER.name)
        except Refused as error:
            tick.problems["release"] = f"{command.kind}: {error.message}"
            return state
        policy = {"policy": release.policy_text.label, "policy_sha256": release.policy_text.sha256}
        committed = self._store.commit(
            state,
            after,
            actor=CONTROLLER,
            action=f"release.{command.kind}",
            subject=release.id,
            detail={"command": command.model_dump(mode="json", exclude={"verdicts"}), **detail, **policy},
            now_us=tick.now_us,
            lease=lease,
        )
        if not isinstance(command, Note):
            tick.done.append(f"{command.kind} {release.id}: {detail['reason']}")
        return committed

    def _fault(self, part: str, error: Exception) -> str:
        """Of ours: with its traceback in the log, once."""
        words = f"{type(error).__name__}: {error}"
        if words != self._last_fault:
            log.exception("%s failed", part)
        self._last_fault = words
        return words

    @contextmanager
    def _reported_as(self, tick: Tick, part: str) -> Iterator[None]:
        """What fails outside is a problem of this round and no reason to skip the steps after it."""
        try:
            yield
        except (StreamRecError, OSError) as error:
            if isinstance(error, Conflict):
                raise
            tick.problems[part] = str(error)


def no_evidence(release: Release, now_us: int, problem: str) -> Snapshot:
    return Snapshot(
        release=release.id, step=release.step, taken_us=now_us, since_us=release.since_us, problem=problem[:2000]
    )


def _older_than(last: RoutingTable | None, state: ControlState, lease: Lease) -> str:
    """A database that knows less than the table in force was put back from a copy, or made anew: it must not end what
    is being served."""
    if last is None:
        return ""
    if last.epoch > lease.epoch:
        return f"table {last.name} is of a later epoch than our lease ({lease.epoch}): the control database is older"
    if last.champion is not None and state.champion is None:
        return f"table {last.name} has champion {last.champion.bento} and the control database has none: it is older"
    return ""


def _content(table: RoutingTable) -> RoutingTable:
    return table.model_copy(update={"version": 0, "written_at": ""})


def _words(verdicts: tuple[Any, ...]) -> list[tuple[str, str]]:
    return [(v.name, v.verdict) for v in verdicts]
