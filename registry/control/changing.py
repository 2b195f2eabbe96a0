"""Changing the control state: read, decide, put in place by compare-and-swap; again where somebody else was faster."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from contracts.errors import NotFound, Refused
from registry.control.store import Actor, Conflict, ControlStore
from registry.releases.values import ControlState

TRIES = 8  # the controller may commit between our read and our commit
PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class Change:
    """What a step makes of one state, and what the audit says of it."""

    after: ControlState
    subject: str
    detail: Mapping[str, Any]


C = TypeVar("C", bound=Change)


def change(
    store: ControlStore,
    actor: Actor,
    action: str,
    subject: str,
    step: Callable[[ControlState], C],
    now_us: int,
    *,
    dry_run: bool = False,
    note_refused: bool = True,
) -> tuple[ControlState, C]:
    """(the state that was committed, the change); with `dry_run` the state as it is.

    All checks of `step` are made again with each try. note_refused: what it refuses is in the audit.

    Raises:
        Refused, NotFound: of `step`.
        Conflict: the state moved at each try.
    """
    for attempt in range(TRIES):
        before = store.load()
        try:
            made = step(before)
        except (Refused, NotFound) as error:
            if note_refused and not dry_run:
                store.note(actor, "refused", subject, {"action": action, "reason": error.message}, now_us)
            raise
        if dry_run:
            return before, made
        try:
            committed = store.commit(
                before,
                made.after,
                actor=actor,
                action=action,
                subject=made.subject,
                detail=dict(made.detail),
                now_us=now_us,
            )
        except Conflict:
            time.sleep(PAUSE_S * attempt)
            continue
        return committed, made
    raise Conflict(
        f"the control state keeps moving: {action} {subject} changed nothing", next_command="streamrec release status"
    )
