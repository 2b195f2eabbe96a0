"""The state machine of releases: what each command does to the control state, or why it is refused. Pure.

    created → shadow → canary | ab → promoted          pause and resume in between
       └─────────┴──────────┴──→ rolled_back | superseded ; promoted → rolled_back while the old champion is warm

Time: `now` is never before the latest moment that the state has seen, so that a clock which jumps back moves nothing
back. The clock of a step stands still while the release is paused; its evidence does not, as its users stay.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

from contracts.errors import Refused, UsageError
from contracts.routing import Target
from registry.releases.invariants import named_rules
from registry.releases.policy import Step
from registry.releases.progress import missing_for_promotion, next_step_command, step_minutes
from registry.releases.values import (
    Command,
    ControlState,
    Go,
    Note,
    Pause,
    Promote,
    Release,
    Resume,
    Rollback,
    Start,
    State,
    Warm,
)

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
SMOKE = "smoke"  # the verdict that a first champion needs
RUNNING: frozenset[State] = frozenset({"shadow", "canary", "ab"})
STATUS = "streamrec release status"


def apply(state: ControlState, command: Command, now_us: int, actor: str = "") -> ControlState:
    """The state after the command.

    Raises:
        Refused: the command is not allowed in this state; says why and what to do next.
        UsageError: the command does not fit itself (a rules release without its document).
    """
    now = max(now_us, state.seen_us)
    after = _TRANSITIONS[type(command)](state, command, now)
    if after is state:  # an order that was adopted before
        return state
    release = after.release
    if release is not None and actor and release is not state.release:
        release = release.model_copy(update={"actor": actor})
    after = after.model_copy(update={"release": release, "seen_us": now})
    return after.model_copy(update={"rules": _referred(after)})


def expire(state: ControlState, now_us: int) -> ControlState:
    """Without the warm Bentos whose time is over; `previous` is disarmed with its own. The same object when none is."""
    now = max(now_us, state.seen_us)
    warm = tuple(w for w in state.warm if w.until_us > now)
    if warm == state.warm:
        return state
    armed = state.previous if any(w.target == state.previous for w in warm) else None
    after = state.model_copy(update={"warm": warm, "previous": armed, "ended": None, "seen_us": now})
    return after.model_copy(update={"rules": _referred(after)})


def _start(state: ControlState, command: Start, now: int) -> ControlState:
    old = state.release
    if old is not None and old.id == command.id:
        raise Refused(f"release {old.id} has been started already", next_command=STATUS)
    if old is not None and old.active and not command.supersede:
        raise Refused(
            f"release {old.id} of {_label(old.candidate)} is under way ({old.state}): one at a time",
            next_command="streamrec release rollback, or start again with --supersede",
        )
    if command.candidate == state.champion:
        raise Refused(f"{_label(command.candidate)} is the champion already", next_command=STATUS)
    if command.id in {e.id for e in state.experiments} | {f.id for f in state.flags}:
        raise Refused(f"{command.id} is the id of an experiment or a flag", next_command=STATUS)
    _check_rules(state, command)
    release = Release(
        id=command.id,
        kind=command.release_kind,
        candidate=command.candidate,
        champion=state.champion,
        policy_text=command.policy_text,
        policy=command.policy,
        hypothesis=command.hypothesis,
        created_us=now,
        step_since_us=now,
        since_us=now,
        reason="started",
    )
    rules = state.rules if command.rules is None else {**state.rules, command.rules.digest: command.rules}
    ended = _end(old, "superseded", f"superseded by {command.id}", now) if old and old.active else None
    # One rollback at a time is armed, that of this release: repeated, it must not lead further back.
    return state.model_copy(update={"release": release, "previous": None, "rules": rules, "ended": ended})


def _check_rules(state: ControlState, command: Start) -> None:
    named, document = command.candidate.rules, command.rules
    if command.release_kind == "rules":
        if document is None or named != document.digest:
            raise UsageError(
                "a release of rules needs its document, and a candidate that names it",
                next_command="streamrec release start --rules FILE",
            )
        if state.champion is None:
            raise Refused("rules need a champion to answer by them", next_command="streamrec release start TAG")
        if command.candidate.bento != state.champion.bento:
            raise Refused(
                f"a release of rules changes no Bento: the champion is {state.champion.bento}, not "
                f"{command.candidate.bento}",
                next_command="streamrec release start --rules FILE",
            )
    elif named is not None and named not in state.rules and (document is None or document.digest != named):
        raise Refused(f"no rules document {named}", next_command="streamrec release start --rules FILE")


def _go(state: ControlState, command: Go, now: int) -> ControlState:
    release = _running(state, "go to another step")
    if state.champion is None:
        raise Refused(
            f"there is no champion to compare {_label(release.candidate)} with: it is promoted after its smoke test",
            next_command=STATUS,
        )
    steps = release.policy.steps
    to = release.step + 1 if command.step_kind == "next" else _find_step(release, command)
    if to >= len(steps):
        raise Refused(f"{steps[-1].name} is the last step of the plan", next_command="streamrec release promote")
    step = steps[to]
    skipped = tuple(s.name for s in steps[release.step + 1 : to])
    reason = command.reason or f"go to {step.name}"
    if skipped:
        reason += f" (skipped: {', '.join(skipped)})"
    moved = release.model_copy(
        update={
            "state": step.kind,
            "step": to,
            "step_since_us": now,
            "since_us": release.since_us if _compared(release.current) and _compared(step) else now,
            "reason": reason,
            "verdicts": (),  # those that led here are in the audit; they say nothing of this step
            "skipped": release.skipped + skipped,
            "waived": (),
        }
    )
    return state.model_copy(update={"release": moved, "ended": None})


def _find_step(release: Release, command: Go) -> int:
    """The first step of the kind (and weight), which must lie ahead: the same command again does nothing."""
    steps = release.policy.steps
    words = command.step_kind + (f" {command.weight:g} %" if command.weight is not None else "")
    if command.weight is not None and not 0 < command.weight <= 100:
        raise UsageError(
            f"a weight is over 0 and at most 100 %, not {command.weight:g}", next_command=_forward_command(release)
        )
    fits = [
        i for i, step in enumerate(steps) if step.kind == command.step_kind and command.weight in (None, step.weight)
    ]
    if not fits:
        plan = ", ".join(s.name for s in steps)
        raise Refused(
            f"the plan of {release.policy_text.label} has no step {words}, only {plan}",
            next_command=_forward_command(release),
        )
    current = release.current
    if current is not None and fits[0] <= release.step:
        at = f"is at {current.name} already" if fits[0] == release.step else f"is at {current.name}, beyond {words}"
        raise Refused(
            f"{release.id} {at}; steps go forward, as a narrower one would move users back",
            next_command=_forward_command(release),
        )
    return fits[0]


def _forward_command(release: Release) -> str:
    return next_step_command(release) + ", or streamrec release rollback"


def _promote(state: ControlState, command: Promote, now: int) -> ControlState:
    release = _active(state, "promote") if command.force else _running(state, "promote")
    verdicts = command.verdicts or release.verdicts
    if not command.force:
        missing = (
            missing_for_promotion(release, verdicts, now)
            if state.champion is not None
            else []
            if any(v.name == SMOKE and v.verdict == "pass" for v in verdicts)
            else ["the first champion's smoke test, which the controller makes once the Bento is up"]
        )
        if missing:
            raise Refused(
                f"{release.id} is not ready to be promoted: {'; '.join(missing)}",
                next_command="streamrec release status --watch (an admin may: streamrec release promote --force)",
            )
    old = state.champion
    until = now + int(release.policy.warm_hours * HOUR_US)
    warm = tuple(w for w in state.warm if w.target not in (release.candidate, old))
    stays = old is not None and until > now
    if old is not None and stays:
        warm = (*warm, Warm(target=old, until_us=until))
    reason = command.reason or "promoted"
    if command.force:
        left = missing_for_promotion(release, verdicts, now) if old is not None else []
        reason += " (by force" + (f", without: {'; '.join(left)}" if left else "") + ")"
    ended = _end(release, "promoted", reason, now).model_copy(update={"verdicts": verdicts})
    return state.model_copy(
        update={
            "champion": release.candidate,
            "previous": old if stays else None,
            "release": ended,
            "warm": warm,
            "ended": None,
        }
    )


def _rollback(state: ControlState, command: Rollback, now: int) -> ControlState:
    if command.adopted is not None and command.adopted in state.adopted:
        return state  # an order is obeyed once, however often it is read
    adopted = (*state.adopted, command.adopted) if command.adopted is not None else state.adopted
    release = state.release
    if release is None or not (release.active or (release.state == "promoted" and state.previous is not None)):
        _nothing_to_roll_back(state)
    to = release.champion
    if to is None:
        raise Refused(
            f"{release.id} would be the first champion: there is nothing to go back to",
            next_command="streamrec release start TAG --supersede",
        )
    verdicts = command.verdicts or release.verdicts
    ended = _end(release, "rolled_back", command.reason or "rolled back", now).model_copy(update={"verdicts": verdicts})
    return state.model_copy(
        update={
            "champion": to,
            "previous": None,
            "release": ended,
            "warm": tuple(w for w in state.warm if w.target != to),
            "adopted": adopted,
            "ended": None,
        }
    )


def _nothing_to_roll_back(state: ControlState) -> NoReturn:
    release = state.release
    if release is None:
        raise Refused("no release has been started: there is nothing to go back to", next_command=STATUS)
    at = datetime.fromtimestamp((release.ended_us or 0) / 1e6, UTC).isoformat(timespec="seconds")
    if release.state == "promoted" and release.champion is not None:
        raise Refused(
            f"{release.id} was promoted at {at}, and {_label(release.champion)} is not kept warm any more",
            next_command=f"streamrec release start {release.champion.bento}",
        )
    if release.state == "promoted":
        raise Refused(f"{release.id} was the first champion: there is nothing to go back to", next_command=STATUS)
    raise Refused(f"{release.id} is {release.state} since {at}: nothing is left to roll back", next_command=STATUS)


def _pause(state: ControlState, command: Pause, now: int) -> ControlState:
    release = _active(state, "pause")
    if release.state == "paused":
        raise Refused(f"{release.id} is paused already", next_command="streamrec release resume")
    paused = release.model_copy(
        update={
            "state": "paused",
            "paused_from": release.state,
            "paused_us": now,
            "reason": command.reason or "paused",
            "verdicts": command.verdicts or release.verdicts,
        }
    )
    return state.model_copy(update={"release": paused, "ended": None})


def _resume(state: ControlState, command: Resume, now: int) -> ControlState:
    """Who resumes has seen what failed: it does not pause again by the same verdict, and a step that had run past its
    deadline gets its whole time again."""
    release = _active(state, "resume")
    if release.state != "paused":
        raise Refused(f"{release.id} is not paused but {release.state}", next_command=STATUS)
    step = release.current
    over = step is not None and step_minutes(release, now) >= step.deadline_minutes
    waived = tuple(v.name for v in release.verdicts if v.verdict == "fail" and not v.critical)
    resumed = release.model_copy(
        update={
            "state": release.paused_from,
            "paused_from": None,
            "paused_us": None,
            "step_since_us": now if over else release.step_since_us + now - (release.paused_us or now),
            "waived": tuple(dict.fromkeys((*release.waived, *waived))),
            "reason": command.reason or "resumed",
        }
    )
    return state.model_copy(update={"release": resumed, "ended": None})


def _note(state: ControlState, command: Note, now: int) -> ControlState:
    """The reason stays that of the last transition; the note's own is in the audit."""
    release = _active(state, "note verdicts")
    return state.model_copy(
        update={"release": release.model_copy(update={"verdicts": command.verdicts}), "ended": None}
    )


def _active(state: ControlState, words: str) -> Release:
    release = state.release
    if release is None or not release.active:
        last = f": {release.id} is {release.state}" if release else ""
        raise Refused(f"no release is under way, nothing to {words}{last}", next_command="streamrec release start TAG")
    return release


def _running(state: ControlState, words: str) -> Release:
    release = _active(state, words)
    if release.state == "paused":
        raise Refused(
            f"{release.id} is paused ({release.reason}): resume it first",
            next_command="streamrec release resume, or streamrec release rollback",
        )
    return release


def _compared(step: Step | None) -> bool:
    """Is there a concurrent control? All of the steps with one share their users, so that evidence adds up."""
    return step is not None and step.kind != "shadow" and step.weight < 100


def _end(release: Release, state: State, reason: str, now: int) -> Release:
    return release.model_copy(
        update={"state": state, "paused_from": None, "paused_us": None, "reason": reason, "ended_us": now}
    )


def _referred(state: ControlState) -> dict[str, Any]:
    """The rules documents that something still names."""
    named = named_rules(state)
    return {digest: document for digest, document in state.rules.items() if digest in named}


def _label(target: Target) -> str:
    return target.bento + (f" with rules {target.rules}" if target.rules else "")


_TRANSITIONS: dict[type, Callable[[ControlState, Any, int], ControlState]] = {
    Start: _start,
    Go: _go,
    Promote: _promote,
    Rollback: _rollback,
    Pause: _pause,
    Resume: _resume,
    Note: _note,
}
