"""A routing table made ready for requests: built once per table, then only read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from bentos.recommender.breaker import Breaker
from contracts.front import FrontOverrides
from contracts.routing import Pass, RoutingTable, Target
from contracts.serving import Variant

FIRST_SHARE = 0.6  # of the time, for an arm of the comparison: what it leaves is for the champion


class Assigned(Protocol):
    """Who gets what, and how likely that was. experiments: id → arm, that of the release too."""

    @property
    def variant(self) -> Variant: ...
    @property
    def probability(self) -> float: ...
    @property
    def unit(self) -> str: ...
    @property
    def experiments(self) -> Mapping[str, str]: ...
    @property
    def forced(self) -> bool: ...
    @property
    def shadow_eligible(self) -> bool: ...
    @property
    def rules(self) -> str | None: ...
    @property
    def sources_off(self) -> tuple[str, ...]: ...


class Assigner(Protocol):
    def assign(self, user_id: str, context: Mapping[str, str], tester: Pass | None = None) -> Assigned: ...


@dataclass(frozen=True, slots=True)
class Alone:
    """Everyone is on the champion."""

    unit: str
    variant: Variant = "champion"
    probability: float = 1.0
    experiments: Mapping[str, str] = field(default_factory=dict)
    forced: bool = False
    shadow_eligible: bool = False
    rules: str | None = None
    sources_off: tuple[str, ...] = ()


class _Nobody:
    def assign(self, user_id: str, context: Mapping[str, str], tester: Pass | None = None) -> Assigned:
        return Alone(user_id)


# Until a table is there: no champion, so that the last resort answers.
NO_TABLE = RoutingTable(epoch=0, version=0, written_at="", champion=None)
NOBODY = _Nobody()


@dataclass(frozen=True, slots=True)
class Step:
    """One call that may be made. share: of the time that is left."""

    variant: Variant
    target: Target
    share: float


class Routes:
    """
    Args:
        breakers: of the table before; those of targets that stay go on.
    """

    def __init__(
        self, table: RoutingTable, assigner: Assigner, before: "Routes | None" = None, *, name: str | None = None
    ) -> None:
        self.table = table
        self.assigner = assigner
        self.name = table.name if name is None else name  # empty while there is no table
        release = table.release
        self.release_id, self.release_step = (release.id, release.step) if release else ("", "")
        champion, candidate = table.champion, release.candidate if release else None
        targets = [t for t in (champion, candidate) if t]
        known: Mapping[Target, Breaker] = before.breakers if before else {}
        self.breakers: dict[Target, Breaker] = {t: known.get(t) or Breaker() for t in targets}
        same_release = before is not None and before.release_id == self.release_id
        self.shadow_breaker: Breaker = before.shadow_breaker if before and same_release else Breaker()
        last = (Step("champion", champion, 1.0),) if champion else ()
        arm = ((Step("control", champion, FIRST_SHARE),) if champion else ()) + last
        tried = ((Step("candidate", candidate, FIRST_SHARE if last else 1.0),) if candidate else ()) + last
        self._plans: dict[Variant, tuple[Step, ...]] = {"champion": last, "control": arm, "candidate": tried}
        self._overrides: dict[tuple[str | None, tuple[str, ...]], str | None] = {}

    def plan(self, variant: Variant) -> tuple[Step, ...]:
        return self._plans.get(variant, self._plans["champion"])

    def overrides(self, target: Target, assigned: Assigned) -> str | None:
        """The header for a Bento, or None. What a flag or an experiment says of the rules wins over the target's."""
        key = (assigned.rules or target.rules, assigned.sources_off)
        if key == (None, ()):
            return None
        if key not in self._overrides:
            digest, sources_off = key
            document = self.table.rules[digest] if digest is not None else None
            self._overrides[key] = msgspec.json.encode(FrontOverrides.of(document, sources_off)).decode()
        return self._overrides[key]

    def mirrors(self, request_id: str) -> bool:
        """Whether the shadow's share has this request: by the random end of its UUIDv7."""
        release = self.table.release
        if release is None or release.shadow <= 0:
            return False
        return int(request_id[-8:], 16) < release.shadow / 100 * 2**32
