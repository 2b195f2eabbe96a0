"""What gateways let through and switch per request, apart from releases: consumers' keys, feature flags, holdouts.

All of it is in the control state, so that it reaches the gateways with the next table, and in the audit.
"""

import hashlib
import secrets
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from contracts.errors import NotFound, Refused, UsageError
from contracts.routing import Consumer, Flag, Holdout
from contracts.rules import RulesDocument
from registry.control.changing import Change, change
from registry.control.store import Actor, ControlStore
from registry.releases.values import ControlState

KEY_PREFIX = "srk_"
MOST = {"consumers": 1000, "flags": 100, "holdouts": 20}  # of contracts.routing.RoutingTable


def create(store: ControlStore, actor: Actor, name: str, rate_per_s: float | None, burst: int, now_us: int) -> str:
    """A new key, which is shown this once.

    Raises:
        UsageError: no such name, rate or burst can be. Refused: the name is taken.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode()).hexdigest()
    try:
        consumer = Consumer(name=name, key_sha256=digest, rate_per_s=rate_per_s, burst=burst)
    except ValidationError as error:
        found = error.errors()[0]
        raise UsageError(
            f"consumer {name!r}: `{found['loc'][0]}`: {found['msg']}", next_command="streamrec access create --help"
        ) from error

    def added(state: ControlState) -> dict[str, Any]:
        if any(c.name == name for c in state.consumers):
            raise Refused(f"there is a consumer {name} already", next_command=f"streamrec access revoke {name}")
        return {"consumers": (*state.consumers, consumer)}

    _change(store, actor, "consumer.create", name, {"rate_per_s": rate_per_s, "burst": burst}, now_us, added)
    return key


def revoke(store: ControlStore, actor: Actor, name: str, now_us: int) -> None:
    """
    Raises:
        NotFound: no such consumer.
    """

    def without(state: ControlState) -> dict[str, Any]:
        left = tuple(c for c in state.consumers if c.name != name)
        if len(left) == len(state.consumers):
            raise NotFound(f"there is no consumer {name}", next_command="streamrec access list")
        return {"consumers": left}

    _change(store, actor, "consumer.revoke", name, {}, now_us, without)


def set_flag(store: ControlStore, actor: Actor, flag: Flag, rules: RulesDocument | None, now_us: int) -> None:
    """Put `flag` in place of one of its name. rules: the document that it switches to.

    Raises:
        Refused: an experiment or the release has this name.
    """

    def changed(state: ControlState) -> dict[str, Any]:
        taken = {e.id for e in state.experiments} | ({state.release.id} if state.release else set())
        if flag.id in taken:
            raise Refused(f"{flag.id} is the name of a release or an experiment")
        documents = {**state.rules, rules.digest: rules} if rules else state.rules
        return {"flags": (*(f for f in state.flags if f.id != flag.id), flag), "rules": documents}

    _change(store, actor, "flag.set", flag.id, flag.model_dump(mode="json"), now_us, changed)


def clear_flag(store: ControlStore, actor: Actor, name: str, now_us: int) -> None:
    """
    Raises:
        NotFound: no such flag.
    """

    def without(state: ControlState) -> dict[str, Any]:
        left = tuple(f for f in state.flags if f.id != name)
        if len(left) == len(state.flags):
            raise NotFound(f"there is no flag {name}", next_command="streamrec flags list")
        return {"flags": left}

    _change(store, actor, "flag.clear", name, {}, now_us, without)


def set_holdout(store: ControlStore, actor: Actor, holdout: Holdout, now_us: int) -> None:
    """Keep a share of the units out of releases (below 100 %) and experiments. A share of 0 ends it."""

    def changed(state: ControlState) -> dict[str, Any]:
        left = tuple(h for h in state.holdouts if h.id != holdout.id)
        return {"holdouts": (*left, holdout) if holdout.share else left}

    _change(store, actor, "holdout.set", holdout.id, holdout.model_dump(mode="json"), now_us, changed)


def _change(
    store: ControlStore,
    actor: Actor,
    action: str,
    subject: str,
    detail: dict[str, Any],
    now_us: int,
    update_of: Callable[[ControlState], dict[str, Any]],
) -> None:
    def made(before: ControlState) -> Change:
        update = update_of(before)
        for part, most in MOST.items():
            if len(update.get(part, ())) > most:
                raise Refused(f"a routing table holds at most {most} {part}: remove one first")
        return Change(before.model_copy(update=update), subject, detail)

    change(store, actor, action, subject, made, now_us, note_refused=False)
