"""What is due about users' records, in one call: for the command, and for whoever watches, about once an hour."""

from bentos.telemetry.erasure import pending
from contracts.settings import Settings
from monitoring.privacy.forget import settled
from monitoring.privacy.retain import Retained, retain


def keep_up(settings: Settings, now_us: int, *, dry_run: bool = False) -> tuple[Retained, int]:
    """Remove what is past its time, end erasures; what was removed, and how many erasures are under way.

    Again is the same, and a killed call is gone on with by the next.

    Raises:
        Unreachable: the event store cannot be written, or another process is rolling a log: come again.
    """
    removed = retain(settings, now_us, dry_run=dry_run)
    return removed, len(pending(settings.home).pending) if dry_run else settled(settings.home, now_us)
