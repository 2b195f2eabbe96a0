"""Working only for a client that is still there."""

import asyncio
from types import TracebackType

from bentos.recommender.http import ClientGone, Receive


class Attended:
    """`async with Attended(receive):` after the body was read. When the client leaves, what is awaited in the block is
    cancelled, so that jobs which wait are skipped; the block then ends with `ClientGone`.
    """

    __slots__ = ("_gone", "_receive", "_task", "_watch")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._watch = loop.create_task(self._wait())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.cancel()
        if self._gone and kind is asyncio.CancelledError and self._task is not None and self._task.uncancel() == 0:
            raise ClientGone from error

    async def _wait(self) -> None:
        try:
            message = await self._receive()
        except Exception:  # a server that has nothing more to say
            return
        if message["type"] == "http.disconnect" and self._task is not None:
            self._gone = True
            self._task.cancel()
