"""Notices on their way to the channels: written with the alert's own state, struck off when told. Pure.

So a watch that is killed at any moment loses none: what was not written was not decided, and is decided again; what was
written is sent again, with the same key, and a channel counts a key once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from monitoring.alerts.channels.base import Message
from monitoring.alerts.grouping import Notice
from monitoring.signals import Signal
from monitoring.watch.schema import CRITICALITIES, Schema

Entry = dict[str, Any]

AGAIN_S = (5, 15, 60, 300, 900, 3600)
GIVE_UP_US = 7 * 24 * 3_600_000_000
KEPT_SIGNALS = 20


def message(notice: Notice, schema: Schema) -> Message:
    """Owner, runbook and criticality are of the most critical of its signals."""
    rows = [row for signal in notice.signals if (row := schema.row(signal.name)) is not None]
    best = max(rows, key=lambda row: CRITICALITIES.index(row.criticality), default=None)
    criticality = best.criticality if best else "ticket"
    said = [s.details.get("severity") for s in notice.signals if s.family == "level"]
    if said and all(s == "ticket" for s in said if s):
        criticality = "ticket"  # a slow burn is nobody's night
    links = [str(link) for s in notice.signals if (link := s.details.get("page"))]
    return Message(
        key=notice.key,
        kind=notice.kind,
        alert=notice.alert,
        model=notice.model,
        subject=notice.subject,
        criticality=criticality,
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
        {"channel": name, "message": asdict(m), "tries": 0, "next_us": now_us, "since_us": now_us}
        for m in messages
        for name in names
    ]
    return [*outbox, *new]


def due(outbox: Sequence[Entry], now_us: int) -> list[Entry]:
    """In order, and of each channel nothing before what waits in front of it."""
    blocked: set[str] = set()
    found = []
    for entry in outbox:
        if entry["channel"] in blocked:
            continue
        if entry["next_us"] > now_us:
            blocked.add(entry["channel"])
        else:
            found.append(entry)
    return found


def after(outbox: Sequence[Entry], sent: Iterable[str], failed: Iterable[str], now_us: int) -> list[Entry]:
    """sent, failed: `channel|key`. What has failed waits longer each time, and is given up after a week."""
    gone, again = set(sent), set(failed)
    left = []
    for entry in outbox:
        name = key_of(entry)
        if name in gone or (name in again and now_us - entry["since_us"] > GIVE_UP_US):
            continue
        if name in again:
            wait_s = AGAIN_S[min(entry["tries"], len(AGAIN_S) - 1)]
            left.append({**entry, "tries": entry["tries"] + 1, "next_us": now_us + wait_s * 1_000_000})
        else:
            left.append(entry)
    return left


def key_of(entry: Entry) -> str:
    return f"{entry['channel']}|{entry['message']['key']}"


def _short(signal: Signal) -> dict[str, Any]:
    return {
        name: value
        for name, value in signal.as_json().items()
        if name in ("name", "verdict", "value", "threshold", "since", "cause", "at")
    }
