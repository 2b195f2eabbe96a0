"""What the watch must know after a restart, as one document of the control database: alerts, outbox, last looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from monitoring.alerts.grouping import HOUR_US, MINUTE_US, Notice, State, state_document, state_of, step
from monitoring.alerts.grouping import Policy as Grouping
from monitoring.alerts.outbox import Entry, message, posted
from monitoring.signals import Signal, Verdict
from monitoring.watch.running import Finished
from monitoring.watch.schema import Schema

DOCUMENT = "alerts"
NO_MORE_LOOKS = 0  # `seen` of what nobody looks at any more: it waits for no second look
BLIND_AFTER = 3  # crashes in a row, after which that nobody looks is an alert of its own
SERVICE = "service"  # the subject of service levels, whose windows have waited already


@dataclass(frozen=True, slots=True)
class Look:
    """The last look of one check at one Bento. crashes: in a row."""

    at_us: int
    problem: str = ""
    crashes: int = 0
    cpu_s: float = 0.0
    seconds: float = 0.0
    peak_mb: float = 0.0
    runs: int = 0  # in all,
    cpu_all_s: float = 0.0  # and what they cost


@dataclass(frozen=True, slots=True)
class WatchState:
    alerts: State = field(default_factory=dict)
    outbox: Sequence[Entry] = ()
    looks: Mapping[str, Look] = field(default_factory=dict)  # `check|bento`
    given_up: Mapping[str, int] = field(default_factory=dict)  # channel → notices that it was never told

    def as_json(self) -> dict[str, Any]:
        return {
            "alerts": state_document(self.alerts),
            "outbox": list(self.outbox),
            "looks": {key: {name: getattr(look, name) for name in Look.__slots__} for key, look in self.looks.items()},
            "given_up": dict(self.given_up),
        }

    @property
    def signals(self) -> list[Signal]:
        """The last of each name and model."""
        return [signal for alert in self.alerts.values() for signal in alert.signals.values()]


def state_from(document: Mapping[str, Any]) -> WatchState:
    """
    Raises:
        KeyError, TypeError, ValueError: not what `as_json` gave.
    """
    return WatchState(
        state_of(document.get("alerts", ())),
        list(document.get("outbox", ())),
        {key: Look(**look) for key, look in document.get("looks", {}).items()},
        dict(document.get("given_up", {})),
    )


def absorbed(
    state: WatchState,
    ended: Sequence[Finished],
    schema: Schema,
    channels: Sequence[str],
    now_us: int,
    *,
    live: frozenset[str] | None = None,
    rankers: Mapping[str, str] | None = None,
) -> WatchState:
    """The state after a round: what checks have said, or that they could not; and what is to be told. Pure.

    Time passes for alerts also when no check has ended. live: names of what serves; what does not is nobody's trouble
    any more. None: not known. rankers: Bento → how signals name its ranker.
    """
    looks = dict(state.looks)
    signals: list[Signal] = []
    for finished in ended:
        before = looks.get(finished.job.key)
        look = looks[finished.job.key] = _looked(before, finished)
        signals += finished.signals
        signals += _unnamed(state, finished, schema, now_us)
        signals.append(_of_check(finished, look, before, now_us))
        if finished.problem:
            meant = {finished.job.bento, (rankers or {}).get(finished.job.bento, "")}
            signals += _blinded(state, finished, schema, now_us, meant)
    if live is not None:
        signals = [s for s in signals if s.model in live]
        signals += [
            Signal(s.name, s.model, "ok", now_us, cause="it serves no more", seen=NO_MORE_LOOKS)
            for s in state.signals
            if s.model not in live and (s.verdict, s.seen) != ("ok", NO_MORE_LOOKS)
        ]
    alerts, told = _stepped(state.alerts, signals, schema, now_us)
    messages = [message(notice, schema) for notice in told]
    given_up = {**dict.fromkeys(channels, 0), **state.given_up}
    return WatchState(alerts, posted(state.outbox, messages, channels, now_us), looks, given_up)


def _stepped(state: State, signals: Sequence[Signal], schema: Schema, now_us: int) -> tuple[State, list[Notice]]:
    holding, weigh = schema.holding, schema.criticality
    grouping = Grouping(
        hold_us=int(holding.hold_minutes * MINUTE_US),
        clear_us=int(holding.clear_minutes * MINUTE_US),
        quiet_us=int(holding.quiet_hours * HOUR_US),
        flap_factor=holding.flap_factor,
        stale_us=int(holding.stale_hours * HOUR_US),
    )
    levels = {key: alert for key, alert in state.items() if key[1] == SERVICE}
    others = {key: alert for key, alert in state.items() if key[1] != SERVICE}
    at_once = replace(grouping, hold_us=0)
    of_levels, first = step(levels, [s for s in signals if s.family == "level"], now_us, at_once, weigh)
    of_others, second = step(others, [s for s in signals if s.family != "level"], now_us, grouping, weigh)
    return {**of_levels, **of_others}, [*first, *second]


def _looked(before: Look | None, finished: Finished) -> Look:
    before = before or Look(0)
    return Look(
        at_us=finished.job.at_us,
        problem=finished.problem,
        crashes=before.crashes + 1 if finished.problem else 0,
        cpu_s=round(finished.cpu_s, 3),
        seconds=round(finished.seconds, 3),
        peak_mb=round(finished.peak_mb, 1),
        runs=before.runs + 1,
        cpu_all_s=round(before.cpu_all_s + finished.cpu_s, 3),
    )


def _unnamed(state: WatchState, finished: Finished, schema: Schema, now_us: int) -> list[Signal]:
    """What the check has said before and does not name now: as its group is (`drift.input` of `drift.input.price`,
    else `drift.window` or `skew.whole`), and well where there is none. Checks name single columns only while they are
    not well. Of a model that it says nothing of: as what it says of the service is, if anything."""
    said = {(s.name, s.model): s for s in finished.signals}
    found = []
    for before in state.signals:
        row = schema.row(before.name)
        if row is None or row.check != finished.job.check or (before.name, before.model) in said:
            continue
        known = any(model == before.model for _, model in said)
        of = before.model if known else ""
        groups = (before.name, before.name.rpartition(".")[0], f"{before.family}.window", f"{before.family}.whole")
        group = next((said[g, of] for g in groups if (g, of) in said), None)
        if not known and group is None:
            continue
        blind = group is not None and group.verdict == "inconclusive"
        verdict: Verdict = "inconclusive" if blind else "ok"
        cause = group.cause if group is not None and blind else "well again"
        found.append(Signal(before.name, before.model, verdict, now_us, cause=cause))
    return found


def _of_check(finished: Finished, look: Look, before: Look | None, now_us: int) -> Signal:
    """That a check cannot look is a signal too: `inconclusive` at first, and then nobody looks, which is an alert. That
    takes `BLIND_AFTER` crashes, so there is no waiting for one more look."""
    name, bento = f"run.check.{finished.job.check}", finished.job.bento
    if not finished.problem:
        return Signal(name, bento, "ok", now_us, 0, BLIND_AFTER, cause="it ended well")
    cause = f"the check {finished.job.check} {finished.problem} ({look.crashes} times in a row): streamrec status"
    verdict: Verdict = "breach" if look.crashes >= BLIND_AFTER else "inconclusive"
    seen = before.at_us if verdict == "breach" and before else None
    return Signal(name, bento, verdict, now_us, look.crashes, BLIND_AFTER, cause=cause, seen=seen)


def _blinded(state: WatchState, finished: Finished, schema: Schema, now_us: int, meant: set[str]) -> list[Signal]:
    """What the check has said before is no longer known. meant: whom it looked at; a check of no Bento, at all."""
    return [
        Signal(s.name, s.model, "inconclusive", now_us, cause=f"the check {finished.job.check} {finished.problem}")
        for s in state.signals
        if (row := schema.row(s.name)) is not None
        and row.check == finished.job.check
        and (not finished.job.bento or s.model in meant)
    ]
