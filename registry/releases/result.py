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
