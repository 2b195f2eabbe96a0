"""The sessions of a user, folded event by event.

A session is a run of events with no pause longer than 30 minutes, as `user_avg_session_length_min` counts them offline:
every event of the user, impressions that were sent included. Sessions are kept as intervals, so the order of arrival
does not matter: a late event widens the session it falls into, or joins two that it lies between.

Not in the registry: no model reads the session as a feature, and one definition more would make every bundle
unfit. It is state that rules and debugging may read (`UserState.session`).
"""

from typing import NamedTuple

# The default of `session_gap_min` in dataset.toml: whoever streams knows no data set.
SESSION_GAP_US = 30 * 60 * 1_000_000
# Sessions remembered of a user, so that late events find theirs; one that is older than all of them is left out.
_KEPT = 8


class Session(NamedTuple):
    """start_us, last_us: its first and last event, microseconds since 1970 UTC; events: how many."""

    start_us: int
    last_us: int
    events: int

    def open_at(self, now_us: int) -> bool:
        """Whether an event at `now_us` would still belong to it."""
        return now_us - self.last_us <= SESSION_GAP_US

    @property
    def length_us(self) -> int:
        return self.last_us - self.start_us


def add_event(sessions: tuple[Session, ...], at_us: int) -> tuple[Session, ...]:
    """The sessions with one event more, newest first, the newest 8.

    Args:
        sessions: newest first, no two within a gap of each other.
    """
    grown = Session(at_us, at_us, 1)
    others = []
    for s in sessions:
        if s.start_us - SESSION_GAP_US <= at_us <= s.last_us + SESSION_GAP_US:
            grown = Session(min(s.start_us, grown.start_us), max(s.last_us, grown.last_us), s.events + grown.events)
        else:
            others.append(s)
    return tuple(sorted((*others, grown), reverse=True)[:_KEPT])
