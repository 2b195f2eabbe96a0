"""What holds in every control state that commands lead to."""

from contracts.routing import Target
from registry.releases.values import ControlState


def invariants(state: ControlState) -> list[str]:
    """What is wrong with a state; empty for every one that commands lead to."""
    wrong = []
    release, targets = state.release, [w.target for w in state.warm]
    if release is not None and release.active:
        if state.champion != release.champion:
            wrong.append("the champion is not whom a rollback of the release goes back to")
        if state.champion is None and release.state not in ("created", "paused"):
            wrong.append("traffic for a candidate without a champion")
        if release.candidate == state.champion:
            wrong.append("the candidate is champion already")
        if state.previous is not None:
            wrong.append("two rollbacks are armed at once")
        if release.ended_us is not None:
            wrong.append("an active release has an end")
        if (release.state == "paused") != (release.paused_from is not None):
            wrong.append("paused, and from nowhere; or running, and paused")
        running = release.paused_from or release.state
        if running == "created" and release.step != -1:
            wrong.append("created, and in a step")
        if running != "created" and (release.current is None or release.current.kind != running):
            wrong.append("the state is not that of the step")
    if release is not None and not release.active and release.ended_us is None:
        wrong.append("an ended release without its end")
    if release is not None and max(release.step_since_us, release.since_us) > state.seen_us:
        wrong.append("a step or an analysis that begins in the future")
    if state.previous is not None:
        if release is None or release.state != "promoted" or state.champion != release.candidate:
            wrong.append("a rollback is armed, and nothing was promoted")
        if state.previous not in targets:
            wrong.append("whom a rollback goes back to is not warm")
        if state.previous == state.champion:
            wrong.append("a rollback leads to the champion itself")
    if state.champion in targets:
        wrong.append("the champion is kept warm")
    if len(set(targets)) != len(targets):
        wrong.append("one target is kept warm twice")
    if state.ended is not None and state.ended.active:
        wrong.append("an ended release is active")
    if missing := named_rules(state) - set(state.rules):
        wrong.append(f"no rules document {', '.join(sorted(missing))}")
    return wrong


def named_rules(state: ControlState) -> set[str]:
    """Digests of the rules documents that something still refers to."""
    release = state.release
    targets: list[Target | None] = [state.champion, state.previous, *(w.target for w in state.warm)]
    if release is not None and release.active:
        targets += [release.candidate, release.champion]
    digests = [t.rules for t in targets if t is not None]
    digests += [e.treatment.rules for e in state.experiments] + [f.on.rules for f in state.flags]
    return {d for d in digests if d is not None}
