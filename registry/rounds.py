"""One round of the controller as a value, and whom it is told: the log, and whoever asks for the status."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts.errors import StreamRecError
from contracts.measurements import Snapshot
from contracts.routing import RoutingTable, Upstream
from registry.control.store import Lease
from registry.releases.values import ControlState

log = logging.getLogger("streamrec.controller")

SECOND = 1_000_000  # in microseconds
Report = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Tick:
    """What one round did. problems: what could not be done, by part; it is tried again."""

    now_us: int
    leading: bool = False
    state: ControlState | None = None
    done: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    wrote: RoutingTable | None = None


def due(last_us: int | None, now_us: int, every_us: int) -> bool:
    """Never yet, long enough ago, or in a future that a clock which jumped back has left us."""
    return last_us is None or not 0 <= now_us - last_us < every_us


class Reporter:
    """Says everything once: what is done, what fails, and that it is well again."""

    def __init__(self, report: Report | None) -> None:
        self._report = report
        self._said: dict[str, str] = {}
        self._news: tuple[Any, ...] = ()
        self._told_us: int | None = None

    def say(self, tick: Tick) -> None:
        """To the log."""
        for line in tick.done:
            log.info("%s", line)
        for part, problem in tick.problems.items():
            if self._said.get(part) != problem:
                log.warning("%s: %s", part, problem)
        for part in self._said.keys() - tick.problems.keys():
            log.info("%s: well again", part)
        self._said = dict(tick.problems)

    def tell(
        self,
        tick: Tick,
        state: ControlState,
        ready: Mapping[str, Upstream],
        lease: Lease,
        table: RoutingTable | None,
        next_: str,
        snapshot: Snapshot | None,
    ) -> None:
        """To `release status`: at news, and once a second, so that it sees that somebody is there."""
        if self._report is None:
            return
        news = (state.version, lease.epoch, dict(tick.problems), dict(ready), next_)
        if news == self._news and not due(self._told_us, tick.now_us, SECOND):
            return
        self._news, self._told_us = news, tick.now_us
        document = {
            "holder": lease.holder,
            "epoch": lease.epoch,
            "until_us": lease.until_us,
            "at_us": tick.now_us,
            "version": state.version,
            "table": table.name if table else None,
            "ready": {bento: list(upstream.urls) for bento, upstream in ready.items()},
            "problems": dict(tick.problems),
            "next": next_ if state.release and state.release.active else "",
            # Through JSON text: there, what is not finite is null.
            "evidence": json.loads(snapshot.model_dump_json()) if snapshot else None,
        }
        try:
            self._report(document)
        except (StreamRecError, OSError) as error:
            tick.problems["report"] = str(error)
