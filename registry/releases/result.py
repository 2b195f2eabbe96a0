"""What an operation on releases gives back, for the command line and for HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.releases.values import ControlState, Release


@dataclass(frozen=True, slots=True)
class Result:
    """plan: what was done, or with `dry_run` would be. changed: the state has moved. more: facts of one command."""

    state: ControlState
    release: Release | None
    next: str
    plan: tuple[str, ...]
    changed: bool
    more: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON, for scripts and for HTTP."""
        release = self.release
        return {
            "champion": self.state.champion.bento if self.state.champion else None,
            "release": release.id if release else None,
            "candidate": release.candidate.bento if release else None,
            "state": release.state if release else None,
            "step": release.current.name if release and release.current else None,
            "changed": self.changed,
            "plan": list(self.plan),
            "next": self.next,
            **self.more,
        }
