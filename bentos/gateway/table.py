"""The gateway's view of `home/control`: the last good routing table, and the break-glass order on top of it.

A table is taken as a whole or not at all. What cannot be read, is not signed by our key, does not validate or is older
than what holds is refused and reported, and the last good one goes on. The key that was there first holds until the
process ends: whoever may replace `routing.pub` may not hand over the routing of a gateway that runs.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from bentos.gateway.assignment import Assigner
from contracts.errors import Refused, StreamRecError
from contracts.routing import OVERRIDE, PUBLIC_KEY, ROUTING, BreakGlass, RoutingTable
from contracts.signing import Verifier

log = logging.getLogger("streamrec.gateway")

MAX_BYTES = 32 << 20
FILES = (ROUTING, OVERRIDE, PUBLIC_KEY)

Stamp = tuple[int, int, int] | None  # inode, time of change, size
Document = TypeVar("Document", bound=BaseModel)


@dataclass(slots=True)
class Counts:
    """Since the start. refused: unsigned, not valid, or older. unreadable: no file, or it does not open."""

    accepted: int = 0
    refused: int = 0
    unreadable: int = 0


class TableWatcher:
    """
    Args:
        folder: `home/control`.
        every_s: pause between two looks; a look at files that are as before is three calls of `stat`.
        report: told each new problem, and None when there is none any more.
    """

    def __init__(
        self, folder: Path, *, every_s: float = 0.2, report: Callable[[str | None], None] | None = None
    ) -> None:
        self.verifier: Verifier | None = None
        self.problem: str | None = None
        self.counts = Counts()
        self._folder = folder
        self._every_s = every_s
        self._report = report or _log
        self._seen: tuple[Stamp, ...] | None = None  # None: look again, whatever the stamps say
        self._key: bytes | None = None
        self._base: RoutingTable | None = None
        self._order: BreakGlass | None = None
        self._current: tuple[Assigner, RoutingTable] | None = None

    def current(self) -> tuple[Assigner, RoutingTable] | None:
        """Both of one table. None until the first good one."""
        return self._current

    def poll(self) -> bool:
        """Look once; True when another table holds from now on. Never raises."""
        try:
            stamps = tuple(_stamp(self._folder / name) for name in FILES)
            if stamps == self._seen:
                return False
            self._seen = stamps
            return self._take()
        except Exception as error:  # a gateway lives on with what it has, whatever the files are
            self._seen = None
            self._tell(f"routing: {type(error).__name__}: {error}")
            return False

    async def run(self) -> None:
        """Poll until cancelled. Reading and compiling happen in a thread: requests go on."""
        while True:
            await asyncio.to_thread(self.poll)
            await asyncio.sleep(self._every_s)

    def _take(self) -> bool:
        problems = [self._take_key()]
        before = self._current
        if self.verifier is not None:
            base, problem = self._read_table(self.verifier)
            problems.append(problem)
            self._order, problem = self._read_order(self.verifier)
            problems.append(problem)
            problems.append(self._apply(base))
            if base is not self._base:  # refused; but an order may be new all the same
                problems.append(self._apply(self._base))
        self._tell("; ".join(p for p in problems if p) or None)
        return self._current is not before

    def _apply(self, base: RoutingTable | None) -> str | None:
        """Let the table hold, with the order on top. Returns what there is to say of it."""
        if base is None:
            return None
        table, problem = _with_order(base, self._order)
        if self._current is None or table != self._current[1]:
            try:
                self._current = (Assigner(table), table)
            except Refused as error:
                self.counts.refused += 1
                return error.message
        self.counts.accepted += base is not self._base
        self._base = base
        return problem

    def _take_key(self) -> str | None:
        path = self._folder / PUBLIC_KEY
        if self.verifier is not None:
            try:
                same = path.read_bytes() == self._key
            except OSError:
                return None  # a table is checked with the key that this process has
            return None if same else f"{path} has another key: it holds after a restart of the gateway"
        try:
            verifier, key = Verifier.read(path), path.read_bytes()
        except (StreamRecError, OSError) as error:
            self._seen = None
            return str(error)
        self.verifier, self._key = verifier, key
        return None

    def _read_table(self, verifier: Verifier) -> tuple[RoutingTable | None, str | None]:
        """The one that is to hold, and what is wrong with the one in the file."""
        path, held = self._folder / ROUTING, self._base
        goes_on = f"; table {held.name} goes on" if held else ""
        try:
            table = _read(path, verifier, RoutingTable)
        except FileNotFoundError:
            self.counts.unreadable += 1
            return held, f"there is no {path}{goes_on}"
        except OSError as error:
            self.counts.unreadable += 1
            self._seen = None  # it may pass without a trace in the file's stamp
            return held, f"{path} cannot be read: {error}{goes_on}"
        except Refused as error:
            self.counts.refused += 1
            return held, f"{path}: {error.message}{goes_on}"
        if held is None or (table.epoch, table.version) > (held.epoch, held.version):
            return table, None
        if table == held:
            return held, None
        self.counts.refused += 1
        word = "another table of the same version" if table.name == held.name else f"{table.name}, which is older"
        return held, f"{path} is {word}{goes_on}"

    def _read_order(self, verifier: Verifier) -> tuple[BreakGlass | None, str | None]:
        """An order that turns unreadable still holds; one that is taken away does not."""
        path = self._folder / OVERRIDE
        try:
            return _read(path, verifier, BreakGlass), None
        except FileNotFoundError:
            return None, None
        except OSError as error:
            self._seen = None
            return self._order, f"{path} cannot be read: {error}"
        except Refused as error:
            return self._order, f"{path}: {error.message}"

    def _tell(self, problem: str | None) -> None:
        if problem != self.problem:
            self.problem = problem
            self._report(problem)


def _with_order(base: RoutingTable, order: BreakGlass | None) -> tuple[RoutingTable, str | None]:
    """The table as the order wants it, unless it knows the order already."""
    if order is None or order.id in base.adopted:
        return base, None
    champion, problem = order.champion, f"break-glass order {order.id} by {order.actor} holds: {order.reason}"
    if champion.rules is not None and champion.rules not in base.rules:
        problem += f" (without its rules {champion.rules}, which the table lacks)"
        champion = champion.model_copy(update={"rules": None})
    return base.model_copy(update={"champion": champion, "release": None}), problem


def _read(path: Path, verifier: Verifier, kind: type[Document]) -> Document:
    """
    Raises:
        OSError: it does not open. Refused: too long, not signed by our key, or not such a document.
    """
    if path.exists() and not path.is_file():  # a named pipe would never end
        raise Refused("not a file")
    with path.open("rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise Refused(f"longer than {MAX_BYTES >> 20} MiB")
    payload = verifier.open(text)
    try:
        return kind.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Refused(f"signed, and not valid: `{where}`: {first['msg']} ({error.error_count()} in all)") from error


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _log(problem: str | None) -> None:
    if problem is None:
        log.info("routing is in order again")
    else:
        log.warning("%s", problem)
