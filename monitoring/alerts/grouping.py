"""Signals to alerts: one for what belongs together, raised late enough to be meant, ended only when it is over.

A pure function of (state, signals, clock). An alert is (model, subject): drift, skew, outcomes and slices of one model
are one subject, `quality`, since they are how one trouble shows. Its life:

    quiet ─ breach ─► pending ─ still so after `hold_us` ─► firing ─ ok ─► clearing ─ still so after `clear_us` ─► quiet
                         └─ ok ─► quiet                       ▲── breach ───┘

`inconclusive` moves nothing: a check that cannot see raises no alarm, and one that was in breach ends none. A signal
that is not in a round is as it was, until it is `stale_us` old and is forgotten as unknown. An alert that comes back
within `quiet_us` of its end is the same trouble: it must hold `flap_factor` times as long to be raised again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

from monitoring.signals import Signal, Verdict, signal_of, worst

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


@dataclass(frozen=True, slots=True)
class Policy:
    """hold_us: how long a breach must last; 0 raises at once. clear_us: how long all must be well again."""

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
    told: tuple[str, ...] = ()  # of them, those that a notice has named
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

    @property
    def since_us(self) -> int | None:
        """When the oldest of what is seen began, as far as is known."""
        return min((s.since or s.at for s in self.breaches), default=None)

    @property
    def id(self) -> str:
        """The same from the notice that raises it to the one that ends it."""
        return sha256(f"{self.model}|{self.subject}|{self.raised_us}".encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Notice:
    """What people are told. since_us: since when the trouble is seen; lasted_us: of a recovery."""

    kind: Kind
    alert: str  # its id
    model: str
    subject: str
    at_us: int
    since_us: int | None
    text: str
    signals: tuple[Signal, ...]
    lasted_us: int | None = None

    @property
    def key(self) -> str:
        """For a receiver that counts each notice once: the same when it is sent again."""
        return f"{self.alert}:{self.kind}:{self.at_us}"


State = Mapping[tuple[str, str], Alert]


def step(state: State, signals: Iterable[Signal], now_us: int, policy: Policy) -> tuple[State, list[Notice]]:
    """The state after a round of checks, and what is to be told. The same signals again change nothing."""
    heard: dict[tuple[str, str], dict[str, Signal]] = {}
    for signal in signals:
        key = (signal.model, SUBJECTS.get(signal.family, signal.family))
        heard.setdefault(key, {})[signal.name] = signal
    after: dict[tuple[str, str], Alert] = {}
    notices = []
    for key in sorted(state.keys() | heard.keys()):
        alert = state.get(key) or Alert(*key, began_us=now_us)
        known = {**alert.signals, **heard.get(key, {})}
        fresh = {name: s for name, s in known.items() if now_us - s.at <= policy.stale_us}
        alert, notice = _advance(replace(alert, signals=fresh), now_us, policy)
        after[key] = alert
        if notice:
            notices.append(notice)
    return after, notices


def _advance(alert: Alert, now_us: int, policy: Policy) -> tuple[Alert, Notice | None]:
    new = [s.name for s in alert.breaches if s.name not in alert.involved]
    alert = replace(alert, involved=(*alert.involved, *new))
    verdict = alert.verdict
    if alert.phase == "quiet" and verdict == "breach":
        alert = replace(alert, phase="pending", began_us=now_us)
    waited = now_us - alert.began_us
    if alert.phase == "pending":
        if verdict == "ok":
            return replace(alert, phase="quiet", began_us=now_us, involved=()), None
        if verdict == "breach" and waited >= _hold_us(alert, now_us, policy):
            names = tuple(s.name for s in alert.breaches)
            alert = replace(alert, phase="firing", began_us=now_us, raised_us=now_us, told=names)
            return alert, _notice("raised", alert, alert.breaches, now_us)
        return alert, None
    if alert.phase == "firing":
        if verdict == "ok":
            return replace(alert, phase="clearing", began_us=now_us), None
        return _widened(alert, now_us)
    if alert.phase == "clearing":
        if verdict == "breach":
            return _widened(replace(alert, phase="firing", began_us=now_us), now_us)
        if verdict == "inconclusive":
            return replace(alert, began_us=now_us), None
        if waited >= policy.clear_us:
            told = [alert.signals[name] for name in alert.told if name in alert.signals]
            notice = _notice("recovered", alert, told, now_us)
            quiet = replace(alert, phase="quiet", began_us=now_us, ended_us=now_us)
            return replace(quiet, raised_us=None, involved=(), told=()), notice
    return alert, None


def _hold_us(alert: Alert, now_us: int, policy: Policy) -> int:
    again = alert.ended_us is not None and now_us - alert.ended_us < policy.quiet_us
    return policy.hold_us * policy.flap_factor if again else policy.hold_us


def _widened(alert: Alert, now_us: int) -> tuple[Alert, Notice | None]:
    """Told again only when a family joins that was not in it: more of the same is no news."""
    families = {name.partition(".")[0] for name in alert.told}
    new = [s for s in alert.breaches if s.family not in families]
    if not new:
        return alert, None
    alert = replace(alert, told=(*alert.told, *(s.name for s in new)))
    return alert, _notice("widened", alert, alert.breaches, now_us)


def _notice(kind: Kind, alert: Alert, signals: Sequence[Signal], now_us: int) -> Notice:
    about = f"{alert.subject} of {alert.model}" if alert.model else alert.subject
    lasted = now_us - (alert.raised_us or now_us) if kind == "recovered" else None
    if lasted is not None:
        text = f"{about}: over after {lasted / HOUR_US:.1f} h; it was {_names(signals)}"
    else:
        causes = "; ".join(s.cause for s in signals[:3] if s.cause)
        text = f"{about}: {_names(signals)}" + (f". {causes}" if causes else "")
    return Notice(kind, alert.id, alert.model, alert.subject, now_us, alert.since_us, text, tuple(signals), lasted)


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
                "told": tuple(row["told"]),
                "signals": {name: signal_of(s) for name, s in row["signals"].items()},
            }
        )
        for row in document
    ]
    return {(alert.model, alert.subject): alert for alert in alerts}
