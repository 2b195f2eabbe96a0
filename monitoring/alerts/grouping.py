"""Signals to alerts: one for what belongs together, raised late enough to be meant, ended only when it is over.

A pure function of (state, signals, clock). An alert is (model, subject): drift, skew, outcomes and slices of one model
are one subject, `quality`, since they are how one trouble shows. Its life:

    quiet ─ breach ─► pending ─ still so after `hold_us` ─► firing ─ ok ─► clearing ─ still so after `clear_us` ─► quiet
                         └─ ok ─► quiet                       ▲── breach ───┘

"Still so" is what looks say, not what time does: from the first look that found a signal so to the last one it must be
as long. Where a check looks once an hour, one look alone neither raises an alert nor ends one.

`inconclusive` moves nothing: a check that cannot see raises no alarm, and one that was in breach ends none. A signal
that is not in a round is as it was, until it is `stale_us` old and is forgotten as unknown. An alert that comes back
within `quiet_us` of its end is the same trouble: it must hold `flap_factor` times as long to be raised again.

A raised alert is told again, as `widened`, when it is more than was told: another family joins, or it has become more
critical. Each service level is a promise of its own: another level, or the same one burning at a page's rate, is news.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

from monitoring.signals import Signal, Verdict, signal_of, worst
from monitoring.watch.schema import CRITICALITIES, Criticality, highest

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US

Phase = Literal["quiet", "pending", "firing", "clearing"]
Kind = Literal["raised", "widened", "recovered"]

# Family of a signal → what the alert is about. A family that is not named is a subject of its own.
SUBJECTS: Mapping[str, str] = {
    "drift": "quality",
    "skew": "quality",
    "outcome": "quality",
    "slice": "quality",
    "level": "service",
    "age": "freshness",
    "run": "freshness",
}
EACH_TOLD = frozenset({"level"})  # families of which each signal is told, not the first alone

# How critical a signal is: the schema's word (`Schema.criticality`).
Weigh = Callable[[Signal], Criticality]


@dataclass(frozen=True, slots=True)
class Policy:
    """hold_us: how long looks must have found a breach; 0 raises at once. clear_us: how long all to be well again."""

    hold_us: int = 10 * MINUTE_US
    clear_us: int = 30 * MINUTE_US
    quiet_us: int = 6 * HOUR_US
    flap_factor: int = 3
    stale_us: int = 26 * HOUR_US


@dataclass(frozen=True, slots=True)
class Alert:
    """Where one alert stands. signals: the last of each name. began_us: of the phase; raised_us: of the alert, None
    when it is not raised; ended_us: of the one before."""

    model: str
    subject: str
    phase: Phase = "quiet"
    began_us: int = 0
    raised_us: int | None = None
    ended_us: int | None = None
    involved: tuple[str, ...] = ()  # names of all that have been in breach since it was quiet
    told: Mapping[str, Criticality] = field(default_factory=dict)  # those that a notice has named, and as how critical
    signals: Mapping[str, Signal] = field(default_factory=dict)

    @property
    def breaches(self) -> list[Signal]:
        return [s for _, s in sorted(self.signals.items()) if s.verdict == "breach"]

    @property
    def verdict(self) -> Verdict:
        """Of what has been in breach: a check that never was one does not hold up the end."""
        if self.breaches:
            return "breach"
        involved = [self.signals[name] for name in self.involved if name in self.signals]
        return worst(involved) if involved else "ok"

    def held(self, hold_us: int) -> list[Signal]:
        """Breaches that looks have found for so long."""
        return [s for s in self.breaches if s.lasted_us >= hold_us]

    @property
    def since_us(self) -> int | None:
        """When the oldest of what is seen began, as far as is known."""
        return min((s.at if s.since is None else s.since for s in self.breaches), default=None)

    @property
    def id(self) -> str:
        """The same from the notice that raises it to the one that ends it."""
        return sha256(f"{self.model}|{self.subject}|{self.raised_us}".encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Notice:
    """What people are told. since_us: since when the trouble is seen; lasted_us: of a recovery. criticality: of what it
    is told for; of a recovery, the highest that was told."""

    kind: Kind
    alert: str  # its id
    model: str
    subject: str
    at_us: int
    since_us: int | None
    text: str
    signals: tuple[Signal, ...]
    lasted_us: int | None = None
    criticality: Criticality = "ticket"

    @property
    def key(self) -> str:
        """For a receiver that counts each notice once: the same when it is sent again."""
        return f"{self.alert}:{self.kind}:{self.at_us}"


State = Mapping[tuple[str, str], Alert]


def step(
    state: State, signals: Iterable[Signal], now_us: int, policy: Policy, weigh: Weigh = lambda _: "ticket"
) -> tuple[State, list[Notice]]:
    """The state after a round of checks, and what is to be told. The same signals again change nothing."""
    heard: dict[tuple[str, str], dict[str, Signal]] = {}
    for signal in signals:
        key = (signal.model, SUBJECTS.get(signal.family, signal.family))
        heard.setdefault(key, {})[signal.name] = signal
    after: dict[tuple[str, str], Alert] = {}
    notices = []
    for key in sorted(state.keys() | heard.keys()):
        alert = state.get(key) or Alert(*key, began_us=now_us)
        new = {name: _followed(alert.signals.get(name), s) for name, s in heard.get(key, {}).items()}
        known = {**alert.signals, **new}
        fresh = {name: s for name, s in known.items() if now_us - s.at <= policy.stale_us}
        alert, notice = _advance(replace(alert, signals=fresh), now_us, policy, weigh)
        after[key] = alert
        if notice:
            notices.append(notice)
    return after, notices


def _followed(before: Signal | None, signal: Signal) -> Signal:
    """With since when it is so, by what was known before: a breach that goes on began when it did, though the check's
    window has moved past that moment; one whose check does not say since when began when it was first seen."""
    goes_on = before is not None and (before.verdict == "ok") == (signal.verdict == "ok")
    known = before.seen if before is not None and goes_on else None
    if signal.verdict == "inconclusive":
        return replace(signal, seen=known)
    seen = min(at for at in (signal.at, signal.seen, known) if at is not None)
    if signal.verdict == "ok":
        return replace(signal, seen=seen)
    old = before.since if before is not None and before.verdict == "breach" else None
    since = min(at for at in (seen if signal.since is None else signal.since, old) if at is not None)
    return replace(signal, seen=seen, since=since)


def _advance(alert: Alert, now_us: int, policy: Policy, weigh: Weigh) -> tuple[Alert, Notice | None]:
    new = [s.name for s in alert.breaches if s.name not in alert.involved]
    alert = replace(alert, involved=(*alert.involved, *new))
    verdict = alert.verdict
    if alert.phase == "quiet" and verdict == "breach":
        alert = replace(alert, phase="pending", began_us=now_us)
    waited = now_us - alert.began_us
    if alert.phase == "pending":
        if verdict == "ok":
            return replace(alert, phase="quiet", began_us=now_us, involved=()), None
        held = alert.held(policy.hold_us)
        if held and waited >= _hold_us(alert, now_us, policy):
            raised = replace(alert, phase="firing", began_us=now_us, raised_us=now_us)
            return _told("raised", raised, held, now_us, weigh)
        return alert, None
    if alert.phase == "firing":
        if verdict == "ok":
            return replace(alert, phase="clearing", began_us=now_us), None
        return _widened(alert, now_us, policy, weigh)
    if alert.phase == "clearing":
        if verdict == "breach":
            return _widened(replace(alert, phase="firing", began_us=now_us), now_us, policy, weigh)
        if verdict == "inconclusive":
            return replace(alert, began_us=now_us), None
        seen = [alert.signals[name] for name in alert.involved if name in alert.signals]
        if waited >= policy.clear_us and all(s.lasted_us >= policy.clear_us for s in seen):
            told = [alert.signals[name] for name in sorted(alert.told) if name in alert.signals]
            notice = _notice("recovered", alert, told, now_us, highest(alert.told.values()))
            quiet = replace(alert, phase="quiet", began_us=now_us, ended_us=now_us)
            return replace(quiet, raised_us=None, involved=(), told={}), notice
    return alert, None


def _hold_us(alert: Alert, now_us: int, policy: Policy) -> int:
    again = alert.ended_us is not None and now_us - alert.ended_us < policy.quiet_us
    return policy.hold_us * policy.flap_factor if again else policy.hold_us


def _widened(alert: Alert, now_us: int, policy: Policy, weigh: Weigh) -> tuple[Alert, Notice | None]:
    """Told again only when it is more than was told: more of the same is no news."""
    families = {name.partition(".")[0] for name in alert.told}
    most = highest(alert.told.values())

    def is_news(signal: Signal) -> bool:
        if signal.family not in families or _above(weigh(signal), most):
            return True
        told = alert.told.get(signal.name)
        return signal.family in EACH_TOLD and (told is None or _above(weigh(signal), told))

    news = [signal for signal in alert.held(policy.hold_us) if is_news(signal)]
    return _told("widened", alert, news, now_us, weigh) if news else (alert, None)


def _told(kind: Kind, alert: Alert, news: Sequence[Signal], now_us: int, weigh: Weigh) -> tuple[Alert, Notice]:
    """As critical as the news. All breaches are named, and what is named in passing is told as no more than that: it is
    news yet when it has held itself."""
    criticality = highest(weigh(s) for s in news)
    named = {s.name: min(weigh(s), criticality, key=CRITICALITIES.index) for s in alert.breaches}
    as_before = {name: told for name, told in alert.told.items() if name not in named or _above(told, named[name])}
    alert = replace(alert, told={**named, **as_before})
    return alert, _notice(kind, alert, alert.breaches, now_us, criticality)


def _above(one: Criticality, other: Criticality) -> bool:
    return CRITICALITIES.index(one) > CRITICALITIES.index(other)


def _notice(kind: Kind, alert: Alert, signals: Sequence[Signal], now_us: int, criticality: Criticality) -> Notice:
    about = f"{alert.subject} of {alert.model}" if alert.model else alert.subject
    lasted = now_us - (alert.raised_us or now_us) if kind == "recovered" else None
    if lasted is not None:
        text = f"{about}: over after {lasted / HOUR_US:.1f} h; it was {_names(signals)}"
    else:
        causes = "; ".join(s.cause for s in signals[:3] if s.cause)
        text = f"{about}: {_names(signals)}" + (f". {causes}" if causes else "")
    found = tuple(signals)
    return Notice(kind, alert.id, alert.model, alert.subject, now_us, alert.since_us, text, found, lasted, criticality)


def _names(signals: Sequence[Signal], most: int = 5) -> str:
    names = [s.name for s in signals]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def state_document(state: State) -> list[dict[str, Any]]:
    """The state as JSON, for whoever keeps it from one start to the next."""
    return [alert.as_json() for _, alert in sorted(state.items())]


def state_of(document: Iterable[Mapping[str, Any]]) -> State:
    """
    Raises:
        KeyError, TypeError, ValueError: not what `state_document` gave.
    """
    alerts = [
        Alert(
            **{
                **row,
                "involved": tuple(row["involved"]),
                "told": _told_of(row["told"]),
                "signals": {name: signal_of(s) for name, s in row["signals"].items()},
            }
        )
        for row in document
    ]
    return {(alert.model, alert.subject): alert for alert in alerts}


def _told_of(kept: Mapping[str, Criticality] | Sequence[str]) -> Mapping[str, Criticality]:
    """Names alone are of a version that did not keep how critical each was told to be."""
    return kept if isinstance(kept, Mapping) else dict.fromkeys(kept, "ticket")
