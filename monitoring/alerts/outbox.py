"""Notices on their way to the channels: written with the alert's own state, struck off when told. Pure.

So a watch that is killed at any moment loses none: what was not written was not decided, and is decided again; what was
written is sent again, with the same key, and a channel counts a key once.

A channel that is away gets everything in order, once it is back. A message that it refuses is that message's fault:
what is behind it goes ahead, and it is given up after a few tries.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Literal

from monitoring.alerts.channels.base import Message
from monitoring.alerts.grouping import Notice
from monitoring.signals import Signal
from monitoring.watch.schema import CRITICALITIES, Schema

Entry = dict[str, Any]  # channel, message, tries, refused (how many of the tries), next_us, since_us
Outcome = Literal["sent", "failed", "refused"]

AGAIN_S = (5, 15, 60, 300, 900, 3600)
GIVE_UP_US = 7 * 24 * 3_600_000_000
REFUSED_TRIES = 5  # within 6 minutes: a secret that is being changed on both sides loses nothing
KEPT_SIGNALS = 20


def message(notice: Notice, schema: Schema) -> Message:
    """Owner and runbook are of the most critical signal that it is told for."""
    rank = CRITICALITIES.index
    told = rank(notice.criticality)
    weighed = [(rank(schema.criticality(s)), row) for s in notice.signals if (row := schema.row(s.name)) is not None]
    best = max(weighed, key=lambda one: (one[0] <= told, one[0]))[1] if weighed else None
    links = [str(link) for s in notice.signals if (link := s.details.get("page"))]
    return Message(
        key=notice.key,
        kind=notice.kind,
        alert=notice.alert,
        model=notice.model,
        subject=notice.subject,
        criticality=notice.criticality,
        owner=best.owner if best else "serving",
        runbook=best.runbook if best else "docs/runbooks/README.md",
        at_us=notice.at_us,
        since_us=notice.since_us,
        text=notice.text,
        signals=[_short(signal) for signal in notice.signals[:KEPT_SIGNALS]],
        lasted_us=notice.lasted_us,
        link=links[0] if links else "",
    )


def posted(outbox: Sequence[Entry], messages: Iterable[Message], channels: Iterable[str], now_us: int) -> list[Entry]:
    """The outbox with new messages in it, one entry a channel."""
    names = list(channels)
    new = [
        {"channel": name, "message": asdict(m), "tries": 0, "refused": 0, "next_us": now_us, "since_us": now_us}
        for m in messages
        for name in names
    ]
    return [*outbox, *new]


def due(outbox: Sequence[Entry], now_us: int) -> list[Entry]:
    """In order, and of each channel nothing before what waits in front of it; what was refused holds up nothing."""
    blocked: set[str] = set()
    found = []
    for entry in outbox:
        if entry["channel"] in blocked:
            continue
        if entry["next_us"] <= now_us:
            found.append(entry)
        elif not entry.get("refused"):
            blocked.add(entry["channel"])
    return found


def after(entry: Entry, outcome: Outcome, now_us: int) -> Entry | None:
    """The entry as it waits for its next try, longer each time. None: it was told; or it is given up, refused
    `REFUSED_TRIES` times or a week old."""
    refused = entry.get("refused", 0) + (outcome == "refused")
    old = now_us - entry["since_us"] > GIVE_UP_US
    if outcome == "sent" or old or refused >= REFUSED_TRIES:
        return None
    wait_s = AGAIN_S[min(entry["tries"], len(AGAIN_S) - 1)]
    return {**entry, "tries": entry["tries"] + 1, "refused": refused, "next_us": now_us + wait_s * 1_000_000}


def key_of(entry: Entry) -> str:
    return f"{entry['channel']}|{entry['message']['key']}"


def _short(signal: Signal) -> dict[str, Any]:
    return {
        name: value
        for name, value in signal.as_json().items()
        if name in ("name", "verdict", "value", "threshold", "since", "cause", "at")
    }
