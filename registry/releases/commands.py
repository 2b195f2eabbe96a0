"""What the release commands do, for the command line and for HTTP: check, apply, commit, say what comes next.

Each asks `authorise` first. What is refused leaves the state as it was, and an entry in the audit.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from contracts.errors import Refused, StreamRecError
from contracts.routing import BreakGlass, Target
from contracts.rules import RulesDocument
from contracts.settings import Settings
from registry.access import authorise
from registry.break_glass import whom
from registry.control.changing import Change, change
from registry.control.store import Actor, ControlStore, Role
from registry.keys import existing_signer
from registry.releases import machine
from registry.releases.candidate import Documents, demand_evidence, known_tag, missing, read_evidence
from registry.releases.catalogue import read_policy
from registry.releases.progress import next_step_command
from registry.releases.result import Result
from registry.releases.routing import RoutingWriter, write_order
from registry.releases.status import status
from registry.releases.values import (
    Command,
    ControlState,
    Go,
    Pause,
    Promote,
    Resume,
    Rollback,
    Start,
)
from registry.retire import retire

__all__ = ["Result", "ab", "break_glass", "canary", "go", "pause", "promote", "resume", "retire", "rollback", "shadow",
           "start", "status"]  # fmt: skip

StepKind = Literal["shadow", "canary", "ab"]


@dataclass(frozen=True, slots=True)
class _Step:
    """A command that fits one state, and what the audit says of it."""

    command: Command
    subject: str
    plan: tuple[str, ...]
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Made(Change):
    """plan: for people, what is done."""

    plan: tuple[str, ...]


def start(
    store: ControlStore,
    settings: Settings,
    token: str | None,
    *,
    tag: str | None,
    rules: Path | RulesDocument | None = None,
    policy: str = "default",
    hypothesis: str = "",
    supersede: bool = False,
    accept_inconclusive: bool = False,
    now_us: int,
    dry_run: bool = False,
    reason: str = "",
    evidence: Callable[[str, Settings], Documents] = read_evidence,
) -> Result:
    """Begin a release of a Bento, or of a rules document for the champion's Bento.

    Raises:
        NotFound: the Bento is not built here, the rules file or the policy is not there.
        Refused: evidence is missing (lists it), another release is under way, or the candidate is champion already.
    """
    actor = authorise(store, token, "releaser", action="release.start", subject=tag or "rules", now_us=now_us)
    read: dict[str, Documents] = {}  # once, however often the state moves meanwhile
    unasked: dict[str, list[str]] = {}

    def step(state: ControlState) -> _Step:
        frozen, text = read_policy(policy, settings.home)
        document = RulesDocument.read(rules) if isinstance(rules, Path) else rules
        accepted: list[str] = []
        not_asked_for: list[str] = []
        if document is None:
            bento = known_tag(tag or "", settings)
            # Rules have a version of their own: a document that was released stays in force with the next Bento.
            candidate = Target(bento=bento, rules=state.champion.rules if state.champion else None)
            if frozen.evidence == "required":
                if bento not in read:
                    read[bento] = evidence(bento, settings)
                lacking = demand_evidence(bento, read[bento], accept_inconclusive=accept_inconclusive)
                accepted = [str(m) for m in lacking]
            else:
                if bento not in unasked:
                    unasked[bento] = _lacks(bento, settings, evidence)
                not_asked_for = unasked[bento]
        else:
            if state.champion is None:
                raise Refused("rules need a champion to answer by them", next_command="streamrec release start TAG")
            candidate = Target(bento=state.champion.bento, rules=document.digest)
        id_ = release_id(candidate, now_us)
        command = Start(
            id=id_,
            release_kind="bento" if document is None else "rules",
            candidate=candidate,
            rules=document,
            policy_text=text,
            policy=frozen,
            hypothesis=hypothesis,
            supersede=supersede,
        )
        steps = (
            ("promote after a smoke test: there is no champion so far",)
            if state.champion is None
            else tuple(
                f"{s.name}: at least {s.least_minutes:g} min and {s.least_samples:,} requests" for s in frozen.steps
            )
        )
        plan = (
            f"release {id_} of {_label(candidate)} under policy {text.label}",
            *steps,
            *(f"not asked for by {text.label}: {one}" for one in not_asked_for),
            _way_back(state),
        )
        detail = {"accepted_inconclusive": accepted, "not_asked_for": not_asked_for, "policy_text": text.text}
        return _Step(command, id_, plan, detail)

    return _change(store, actor, "release.start", tag or "rules", step, now_us, dry_run, reason)


def go(
    store: ControlStore,
    settings: Settings,
    token: str | None,
    *,
    kind: StepKind,
    weight: float | None = None,
    now_us: int,
    dry_run: bool = False,
    reason: str = "",
) -> Result:
    """To the step of this kind (and weight) of the plan.

    Raises:
        Refused: no release is under way, the plan has no such step, or it would go back.
    """
    command = Go(step_kind=kind, weight=weight, reason=reason)
    words = f"go to {kind}" + (f" {weight:g} %" if weight is not None else "")
    return _command(store, token, "releaser", command, words, now_us, dry_run, reason)


def shadow(store: ControlStore, settings: Settings, token: str | None, **rest: Any) -> Result:
    return go(store, settings, token, kind="shadow", **rest)


def canary(store: ControlStore, settings: Settings, token: str | None, **rest: Any) -> Result:
    return go(store, settings, token, kind="canary", **rest)


def ab(store: ControlStore, settings: Settings, token: str | None, **rest: Any) -> Result:
    return go(store, settings, token, kind="ab", **rest)


def promote(
    store: ControlStore,
    settings: Settings,
    token: str | None,
    *,
    force: bool = False,
    now_us: int,
    dry_run: bool = False,
    reason: str = "",
) -> Result:
    """Make the candidate champion. force: an admin's, without the evidence that is left; audited as such.

    Raises:
        Refused: steps or evidence are missing (lists them), or no release is under way.
    """
    role: Role = "admin" if force else "releaser"
    command = Promote(reason=reason, force=force)
    words = "promote" + (" by force, without the evidence that is left" if force else "")
    return _command(store, token, role, command, words, now_us, dry_run, reason)


def rollback(
    store: ControlStore,
    settings: Settings,
    token: str | None,
    *,
    now_us: int,
    dry_run: bool = False,
    reason: str = "",
) -> Result:
    """Everyone back to who was champion.

    Raises:
        Refused: there is nothing to go back to.
    """
    return _command(store, token, "releaser", Rollback(reason=reason), "roll back", now_us, dry_run, reason)


def pause(
    store: ControlStore,
    settings: Settings,
    token: str | None,
    *,
    now_us: int,
    dry_run: bool = False,
    reason: str = "",
) -> Result:
    return _command(store, token, "releaser", Pause(reason=reason), "pause: weights stay", now_us, dry_run, reason)


def resume(
    store: ControlStore,
    settings: Settings,
    token: str | None,
    *,
    now_us: int,
    dry_run: bool = False,
    reason: str = "",
) -> Result:
    return _command(store, token, "releaser", Resume(reason=reason), "resume", now_us, dry_run, reason)


def break_glass(settings: Settings, *, reason: str, now_us: int, actor: str, dry_run: bool = False) -> Result:
    """A rollback with controller and database gone: a signed order beside the routing table, which gateways obey at
    once and the controller adopts when it is back. Who may read the routing key may do it.

    Raises:
        NotFound: this home has no key or no table. Refused: nothing to go back to.
    """
    signer = existing_signer(settings.home)
    champion = whom(RoutingWriter(settings.home, signer).last())
    moment = datetime.fromtimestamp(now_us / 1e6, UTC)
    order = BreakGlass(
        id=f"glass-{moment:%Y%m%dT%H%M%S}-{_digest(champion.model_dump_json(), now_us)}",
        champion=champion,
        actor=actor,
        reason=reason,
        written_at=moment.isoformat(timespec="milliseconds"),
    )
    if not dry_run:
        write_order(settings.home, signer, order)
    return Result(
        ControlState(champion=champion),
        None,
        "streamrec up: the controller takes the order over into the control database",
        (f"everyone to {_label(champion)}, at all gateways within 2 s; no release",),
        not dry_run,
        {"order": order.id},
    )


def release_id(candidate: Target, now_us: int) -> str:
    """`r-20260102T030405-1a2b3c`: sorts by time; the tail is of candidate and microsecond."""
    moment = datetime.fromtimestamp(now_us / 1e6, UTC)
    return f"r-{moment:%Y%m%dT%H%M%S}-{_digest(candidate.model_dump_json(), now_us)}"


def _lacks(bento: str, settings: Settings, evidence: Callable[[str, Settings], Documents]) -> list[str]:
    """What the evidence lacks where the policy asks for none: told, and kept in the audit."""
    try:
        return [f"[{one.verdict}] {one}" for one in missing(evidence(bento, settings), bento)]
    except StreamRecError as error:  # MLflow may be away, and this release does not need it
        return [f"[none] {error.message}"]


def _digest(text: str, now_us: int) -> str:
    return hashlib.sha256(f"{text} {now_us}".encode()).hexdigest()[:6]


def _command(
    store: ControlStore,
    token: str | None,
    role: Role,
    command: Command,
    words: str,
    now_us: int,
    dry_run: bool,
    reason: str,
) -> Result:
    action = f"release.{command.kind}"
    current = store.load().release
    subject = current.id if current else "-"
    actor = authorise(store, token, role, action=action, subject=subject, now_us=now_us)

    def step(state: ControlState) -> _Step:
        release = state.release
        plan = f"{words}: {release.id}, {_label(release.candidate)}" if release else words
        return _Step(command, release.id if release else "-", (plan,))

    return _change(store, actor, action, subject, step, now_us, dry_run, reason)


def _change(
    store: ControlStore,
    actor: Actor,
    action: str,
    subject: str,
    step_in: Callable[[ControlState], _Step],
    now_us: int,
    dry_run: bool,
    reason: str,
) -> Result:
    def made(state: ControlState) -> _Made:
        step = step_in(state)
        after = machine.apply(state, step.command, now_us, actor.name)
        detail = {
            "command": step.command.model_dump(mode="json", exclude={"policy", "policy_text", "verdicts"}),
            "reason": reason,
            **step.detail,
        }
        if (release := after.release) is not None:
            detail |= {"policy": release.policy_text.label, "policy_sha256": release.policy_text.sha256}
        return _Made(after, step.subject, detail, step.plan)

    state, done = change(store, actor, action, subject, made, now_us, dry_run=dry_run)
    return Result(state, done.after.release, "" if dry_run else _next(state), done.plan, not dry_run)


def _next(state: ControlState) -> str:
    release = state.release
    if release is None or not release.active:
        return "streamrec release status"
    if release.state == "paused":
        return "streamrec release resume, or streamrec release rollback"
    if release.policy.advance == "manual" and state.champion is not None:
        return f"{next_step_command(release)}, as its policy advances by hand"
    return "streamrec release status --watch"


def _way_back(state: ControlState) -> str:
    if state.champion is None:
        return "nothing to go back to: when it cannot answer, its own popularity list does"
    return f"back to {_label(state.champion)}: streamrec release rollback"


def _label(target: Target) -> str:
    return target.bento + (f" with rules {target.rules}" if target.rules else "")
