"""The chain of audit entries: each carries the digest of the one before, so that none is changed or left out unseen.

Whoever can write the whole database can write a whole new chain: on one machine the boundary is file permission. What
the chain finds is a change by anything less, and an end that was cut off (the head is kept beside the entries).
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from registry.control.store import Entry

GENESIS = "0" * 64
MAX_DETAIL = 256 * 1024  # characters; a longer one is cut to what it was about


def canonical(detail: dict[str, Any]) -> str:
    """One text for one content.

    Raises:
        ValueError: a number that JSON has no word for.
    """
    return json.dumps(detail, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str)


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
