"""The consumer's side of the live catalogue: a batch of changes in, its reply out."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bentos.catalogue.shared import Position, SharedCatalogue
from bentos.catalogue.store import CatalogueStore
from bentos.telemetry.wire import Batch, Reply
from contracts.errors import Refused, StreamRecError, Unreachable
from contracts.live_items import ItemChange

LOOK_S = 0.25  # between looks at what other machines have changed
REST_S = 2.0  # after Redis did not answer
MAX_OWED = 10_000  # changes; who made more was told to send them again


class CatalogueIntake:
    """A thread of its own, so that taking an item down never waits for events. The store is opened with the first
    change, and anew after a failure: a damaged catalogue must not hold up events, and one that was mended must not need
    another consumer.

    Where several machines share a catalogue, a change holds on this one first, and is answered with 200 once the others
    can see it.
    """

    def __init__(self, home: Path, max_items: int, shared: SharedCatalogue | None = None) -> None:
        self._home = home
        self._max_items = max_items
        self._shared = shared
        self._owed: list[ItemChange] = []  # made here, and not yet seen by the others
        self._store: CatalogueStore | None = None
        self._thread = ThreadPoolExecutor(1, "catalogue")

    async def answer(self, batch: Batch) -> Reply:
        """After the commit. Never raises for what the store does."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._apply, batch)

    async def follow(self) -> None:
        """Take in what other machines change, until cancelled. Nothing to do where no catalogue is shared."""
        while self._shared is not None:
            reached = await asyncio.get_running_loop().run_in_executor(self._thread, self._meet)
            await asyncio.sleep(LOOK_S if reached else REST_S)

    def close(self) -> None:
        """After what was begun."""
        self._thread.submit(self._close)
        self._thread.shutdown()
        if self._shared:
            self._shared.close()

    def _apply(self, batch: Batch) -> Reply:
        try:
            applied = self._open().apply(batch.items)
            if self._shared:
                self._owed = [*self._owed, *batch.items][-MAX_OWED:]
                self._exchange(self._shared)
        except Refused as error:
            return Reply(batch.number, problem=error.message, refused=True)
        except StreamRecError as error:
            self._close()
            return Reply(batch.number, problem=error.message)
        except Exception as error:
            self._close()
            return Reply(batch.number, problem=f"live catalogue: {error!r}")
        return Reply(batch.number, version=applied.version, changed=list(applied.changed))

    def _meet(self) -> bool:
        """False: Redis or the store is away."""
        try:
            if self._shared:
                self._exchange(self._shared)
        except Exception:  # `answer` names it; here the next round may succeed
            return False
        return True

    def _exchange(self, shared: SharedCatalogue) -> None:
        """Give what is owed, take what is new. A shared catalogue that we do not know, or that has lost something since
        we read it, is first told all that this machine knows.
        """
        store = self._open()
        known, head = store.position(), shared.head()
        if not head.identity or head.identity != known.identity or head.version < known.version:
            if states := store.states():
                shared.offer(states)
            known = Position()
        if self._owed:
            shared.apply(self._owed)
            self._owed = []
        if known != shared.head():
            head, news = shared.news(known)
            store.take(news, head)

    def _open(self) -> CatalogueStore:
        try:
            if self._store is None:
                self._store = CatalogueStore(self._home, max_items=self._max_items)
        except Unreachable:
            self._close()
            raise
        return self._store

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
