"""On which rung this process answers, since when and why: one event for each change, whatever one slow request does.

Looked at once a second. The rung of a second is the one that most of its answers had; without answers it is the best
that the components allow. It has changed when HOLD seconds in a row say the same new rung, and by then it is told once.
Pure: clock and causes are arguments.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from bentos.recommender.health import Change, Component
from bentos.recommender.types import Slate
from contracts.serving import DEGRADATIONS, RANKERS, Aim, Cause

HOLD = 2
REMEMBERED = 20
# Components whose being away is a reason for a lower rung, the first that is away is named.
REASONS: tuple[tuple[str, Cause], ...] = (
    ("retrieval", "retrieval"),
    ("ranking", "ranking"),
    ("online_store", "online_store"),
    ("fallback", "fallback"),
)


@dataclass(frozen=True, slots=True)
class Answered:
    """The last answer of a rung: enough to tell why it was no better one."""

    aim: Aim
    stale: tuple[str, ...]
    notes: tuple[str, ...]


class Rungs:
    def __init__(self, told: Callable[[Change], None] = lambda change: None) -> None:
        self.changes: list[Change] = []  # newest last
        self.rung = DEGRADATIONS[0]
        self._told = told
        self._counts: dict[str, int] = {}
        self._last: dict[str, Answered] = {}
        self._candidate = ""
        self._seen = 0

    def answered(self, slate: Slate, aim: Aim) -> None:
        rung = slate.degradation
        self._counts[rung] = self._counts.get(rung, 0) + 1
        if rung != "full":
            self._last[rung] = Answered(aim, slate.stale, slate.notes)

    def look(self, best: str, components: Mapping[str, Component], wall_s: float) -> Change | None:
        """Once a second. best: the best rung that the components allow. wall_s: seconds since 1970."""
        counts, self._counts = self._counts, {}
        now = max(counts, key=lambda rung: (counts[rung], -DEGRADATIONS.index(rung))) if counts else best
        if now == self.rung:
            self._candidate, self._seen = "", 0
            return None
        self._seen = self._seen + 1 if now == self._candidate else 1
        self._candidate = now
        if self._seen < HOLD:
            return None
        cause, detail = self._why(now, components)
        at = datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="seconds")
        change = Change(at, self.rung, now, cause, detail)
        self.rung = next(rung for rung in DEGRADATIONS if rung == now)
        self._candidate, self._seen = "", 0
        self.changes = [*self.changes[-REMEMBERED + 1 :], change]
        self._told(change)
        return change

    def _why(self, now: str, components: Mapping[str, Component]) -> tuple[Cause, str]:
        if DEGRADATIONS.index(now) < DEGRADATIONS.index(self.rung):
            return "recovered", ""
        for name, cause in REASONS:
            component = components.get(name)
            if component is not None and component.state == "unhealthy":
                return cause, component.detail
        last = self._last.get(now)
        if last is not None and last.aim != "full":
            return "overload", ""
        for name, cause in REASONS:
            component = components.get(name)
            if component is not None and component.state == "degraded":
                return cause, component.detail
        return _cause(last), ""


def _cause(last: Answered | None) -> Cause:
    """From what the answer admitted to. Its notes may hold what a user sent: they are read here, never told."""
    if last is None:
        return "fault"
    notes = " | ".join(last.notes)
    if "deadline passed" in notes:
        return "deadline"
    if "online_store" in last.stale or "online store:" in notes:
        return "online_store"
    if any(f"{ranker}:" in notes for ranker in RANKERS):
        return "ranking"
    return "stale_values" if last.stale and "no computed slate" not in notes else "fault"
