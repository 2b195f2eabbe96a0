"""Keeps an online store that lies apart from the event log in step with it."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bentos.telemetry.event_logs import EventLog
from bentos.telemetry.shown import count_shown
from features.online.base import OnlineStore

_FORGET_EVERY_S = 3_600.0
# A round that takes so long is catching up, or its store hangs: no answer waits for it.
_LONG_S = 1.0


class Teller:
    """Rounds of reading what is new in the log and having it taken in, in a thread of its own: a store that is slow or
    away holds up no commit. The store keeps the position with what it has taken in, so an event counts once, however
    this process ends.

    Args:
        limit: events taken in at a time.
        pause_s: after a round that failed.
        say: where troubles are told.
    """

    def __init__(
        self, log: EventLog, store: OnlineStore, *, limit: int, pause_s: float, say: Callable[[str], None]
    ) -> None:
        self._log = log
        self._store = store
        self._limit = limit
        self._pause_s = pause_s
        self._say = say
        self._news = asyncio.Event()
        self._news.set()  # what was left untold
        self._round: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._thread = ThreadPoolExecutor(1, "tell")
        self._forget_at = 0.0
        self._began: float | None = None
        self.down = False
        self.position: str | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            this, self._round = self._round, loop.create_future()
            self._began = loop.time()
            try:
                await loop.run_in_executor(self._thread, self._catch_up)
            except Exception as error:  # the events are durable: whatever befell the telling, they are answered so
                self._say(f"online store: {error}")
                self.down = True
            else:
                self.down = False
            finally:
                self._began = None
                this.set_result(None)
            if self.down:
                await asyncio.sleep(self._pause_s)
                self._news.set()

    def look(self) -> None:
        """Start a round: there may be something new, also from another machine."""
        self._news.set()

    async def told(self, within_s: float) -> None:
        """Return when what is in the log by now has been taken in, when the time is up, or at once when the store is
        away or far behind."""
        self._news.set()
        if not self._behind:
            await asyncio.wait([self._round], timeout=within_s)

    async def keep(self, home: Path, now_us: int) -> None:
        """Upkeep, once a minute, but for a store that is behind: tell it that the stream is whole and what was shown,
        and have it forget old counts.

        Raises:
            Unreachable: the store is away.
        """
        if not self._behind:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._keep, home, now_us)

    async def close(self, within_s: float) -> None:
        """One more round, for as long as that may take; what is left is told by the next consumer."""
        await self.told(within_s)
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def _behind(self) -> bool:
        """The store is away, or a round takes long."""
        return self.down or (self._began is not None and asyncio.get_running_loop().time() - self._began > _LONG_S)

    def _catch_up(self) -> None:
        position, self.position = self.position, None  # unknown, should this fail
        if position is None:
            position = self._store.position(self._log.id)
        while True:
            events, to = self._log.after(position, self._limit)
            if to == position:
                self.position = position
                return
            if self._store.take_in(self._log.id, events, after=position, to=to):
                position = to
            else:  # another machine's consumer was faster
                position = self._store.position(self._log.id)

    def _keep(self, home: Path, now_us: int) -> None:
        self._catch_up()
        self._store.advance_watermark(now_us)
        count_shown(home, self._store.add_shown, now_us)
        if time.monotonic() >= self._forget_at:
            self._store.forget_counts(now_us)
            self._forget_at = time.monotonic() + _FORGET_EVERY_S
