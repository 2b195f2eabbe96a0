"""Records of a user taken out of the logs of answers.

    log/erasures.json    who is being forgotten, until no segment that is still written can have a record of theirs

Rolled files are rewritten at once, each in one step. A segment that a live process appends to is nobody else's to
change: it ends within minutes, and rolling it leaves the records of the forgotten out (roll.py). Whatever is killed in
between, the same call again, or the next roll, goes on: nothing is done twice, nothing is left.
"""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

ERASURES = "erasures.json"
IDS = ("user_id", "unit")


class Erasure(msgspec.Struct, frozen=True):
    """ids: all that the user was called in a log. Records up to `asked_us` go; what comes later is a new beginning.
    events_gone: the event log and the online store are done; until then the erasure is not at its end, though nothing
    may be left in the logs of answers."""

    ids: list[str]
    asked_us: int
    events_gone: bool = False


@dataclass(frozen=True, slots=True)
class Erasures:
    pending: tuple[Erasure, ...] = ()

    def drop(self, record: Any) -> bool:
        """Whether a record is of somebody who is being forgotten."""
        return any(
            record.timestamp_us <= one.asked_us
            and (record.user_id in one.ids or getattr(record, "unit", None) in one.ids)
            for one in self.pending
        )


def pending(home: Path) -> Erasures:
    try:
        return Erasures(tuple(msgspec.json.decode((home / "log" / ERASURES).read_bytes(), type=list[Erasure])))
    except FileNotFoundError:
        return Erasures()


def ask(home: Path, ids: Collection[str], asked_us: int, *, events_gone: bool = False) -> Erasure:
    """Before anything is removed, so that a killed process has at least said what was to be."""
    found = [one for one in pending(home).pending if set(one.ids) != set(ids)]
    erasure = Erasure(sorted(ids), asked_us, events_gone)
    _write(home, [*found, erasure])
    return erasure


def settle(home: Path, done: Iterable[Erasure]) -> None:
    gone = list(done)
    left = [one for one in pending(home).pending if one not in gone]
    if left:
        _write(home, left)
    else:
        (home / "log" / ERASURES).unlink(missing_ok=True)


def _write(home: Path, erasures: list[Erasure]) -> None:
    path = home / "log" / ERASURES
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{ERASURES}.{os.getpid()}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(erasures))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
