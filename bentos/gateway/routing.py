"""Where a gateway's routing comes from: the signed files of the control folder, watched in the background."""

import asyncio
from pathlib import Path

from bentos.gateway.assignment import Assigner
from bentos.gateway.passes import BadPass, PassReader
from bentos.gateway.table import TableWatcher
from contracts.routing import Pass, RoutingTable


class SignedRouting:
    """
    Args:
        home: tables are read from `home/control`.
    """

    def __init__(self, home: Path) -> None:
        self._watcher = TableWatcher(home / "control")
        self._watching: asyncio.Task[None] | None = None
        self._passes: PassReader | None = None

    def current(self) -> tuple[Assigner, RoutingTable] | None:
        """The last good table."""
        return self._watcher.current()

    @property
    def problem(self) -> str | None:
        """Why what lies there is not what holds."""
        return self._watcher.problem

    async def start(self) -> None:
        self._watcher.poll()
        self._watching = asyncio.create_task(self._watcher.run())

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def open_pass(self, token: str, now_us: int) -> Pass:
        """
        Raises:
            BadPass: not ours, or over.
        """
        if self._passes is None:
            verifier = self._watcher.verifier
            if verifier is None:
                raise BadPass("there is no public key here to tell a pass by")
            self._passes = PassReader(verifier)
        return self._passes.open(token, now_us)
