"""The chain of audit entries: each carries the digest of the one before, so that none is changed or left out unseen.

Found: an entry that was changed, taken out, added or moved; an end that was cut off (the head is kept beside the
entries); a control state that is not the one the last transition left. Not found: whoever can write the whole database
can write a whole new chain, or cut its end and set the head back. On one machine the boundary is file permission; a
number and digest of `release history` that was kept elsewhere shows such a cut.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any

from registry.control.store import Actor, Entry

GENESIS = "0" * 64
MAX_DETAIL = 256 * 1024  # characters; a longer one is cut to what it was about


MAX_SUBJECT, MAX_ACTION = 256, 64  # characters


def canonical(detail: dict[str, Any]) -> str:
    """One text for one content. What JSON has no word for is written as text: an entry of a rollback must not fail for
    an interval without an end, or for a byte that is no letter."""
    try:
        text = _dumps(detail)
    except ValueError:
        text = _dumps(_finite(detail))
    return plain(text)


def plain(text: str, most: int | None = None) -> str:
    """`text` without half characters (an odd byte of a command line), cut to `most` characters."""
    return text.encode("utf-8", "replace").decode()[:most]


def _dumps(detail: Any) -> str:
    return json.dumps(detail, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def bounded(detail: dict[str, Any]) -> str:
    text = canonical(detail)
    if len(text) <= MAX_DETAIL:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    kept = {key: value for key, value in detail.items() if len(canonical({key: value})) < 4096}
    return canonical({**kept, "cut": {"characters": len(text), "sha256": digest}})


def digest_of(number: int, at_us: int, actor: str, action: str, subject: str, detail: str, previous: str) -> str:
    content = "\n".join([previous, str(number), str(at_us), *(json.dumps(w) for w in (actor, action, subject)), detail])
    return hashlib.sha256(content.encode()).hexdigest()


def entry(
    actor: Actor, action: str, subject: str, detail: dict[str, Any], now_us: int, head: tuple[int, str]
) -> tuple[Entry, str]:
    """The entry after `head`, and its detail as it is stored."""
    text = bounded({**detail, "role": actor.role})
    number, who, what, on = (
        head[0] + 1,
        plain(actor.name, MAX_SUBJECT),
        action[:MAX_ACTION],
        plain(subject, MAX_SUBJECT),
    )
    digest = digest_of(number, now_us, who, what, on, text, head[1])
    return Entry(number, now_us, who, what, on, json.loads(text), head[1], digest), text


def problems(entries: Iterable[tuple[Entry, str]], head: tuple[int, str]) -> list[str]:
    """What is wrong with the chain. entries: all, oldest first, each with its detail as stored. head: number and digest
    of the last one that was written."""
    found: list[str] = []
    number, previous = 0, GENESIS
    for entry, detail in entries:
        if entry.number != number + 1:
            found.append(f"entry {number + 1} is missing: {entry.number} comes after {number}")
        elif entry.previous != previous:
            found.append(f"entry {entry.number} does not follow entry {number}")
        wanted = digest_of(entry.number, entry.at_us, entry.actor, entry.action, entry.subject, detail, entry.previous)
        if wanted != entry.digest:
            found.append(f"entry {entry.number} ({entry.action} by {entry.actor}) has been changed")
        number, previous = entry.number, entry.digest
    if (number, previous) != head:
        found.append(f"the last entry is {number}, {head[0]} have been written")
    return found
