"""What is kept of users: the one check that also does what is due, since nobody else comes by so regularly."""

from bentos.telemetry.erasure import pending
from contracts.errors import Unreachable
from monitoring.privacy.upkeep import keep_up
from monitoring.signals import Signal, Verdict
from monitoring.watch.checks.base import Asked

ERASURE = "age.erasure"
HOUR_US = 3_600_000_000
# Segments are rolled within minutes: an erasure that takes a day was killed, or a process will not end its segment.
MOST_H = 24.0


def check(asked: Asked) -> list[Signal]:
    """Records past their time are removed, erasures ended; the signal is the age of the oldest that is under way."""
    home, now_us = asked.settings.home, asked.now_us
    try:
        removed, _ = keep_up(asked.settings, now_us)
    except Unreachable as error:
        return [Signal(ERASURE, "", "inconclusive", now_us, cause=error.message)]
    waiting = pending(home).pending
    oldest_us = min((one.asked_us for one in waiting), default=now_us)
    hours = (now_us - oldest_us) / HOUR_US
    killed = sum(not one.events_gone for one in waiting)
    late = hours > MOST_H
    cause = f"{len(waiting)} erasures are under way, of which {killed} must be asked for again" if late else ""
    details = {"days_removed": dict(removed.partitions), "events_removed": removed.events}
    details |= {"pages_removed": removed.pages, "under_way": len(waiting)}
    since_us = oldest_us if late else None
    verdict: Verdict = "breach" if late else "ok"
    return [Signal(ERASURE, "", verdict, now_us, hours, MOST_H, since_us, cause, details)]
