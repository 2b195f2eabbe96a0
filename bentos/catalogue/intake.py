"""The consumer's side of the live catalogue: a batch of changes in, its reply out."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bentos.catalogue.store import CatalogueStore
from bentos.telemetry.wire import Batch, Reply
from contracts.errors import Refused, StreamRecError


class CatalogueIntake:
    """A thread of its own, so that taking an item down never waits for events. The store is opened with the
    first change, and anew after a failure: a damaged catalogue must not hold up events, and one that was mended must
    not need another consumer.
    """

    def __init__(self, home: Path, max_items: int) -> None:
        self._home = home
        self._max_items = max_items
        self._store: CatalogueStore | None = None
        self._thread = ThreadPoolExecutor(1, "catalogue")

    async def answer(self, batch: Batch) -> Reply:
        """After the commit. Never raises for what the store does."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._apply, batch)

    def close(self) -> None:
        """After what was begun."""
        self._thread.submit(self._close)
        self._thread.shutdown()

    def _apply(self, batch: Batch) -> Reply:
        try:
            if self._store is None:
                self._store = CatalogueStore(self._home, max_items=self._max_items)
            applied = self._store.apply(batch.items)
        except Refused as error:
            return Reply(batch.number, problem=error.message, refused=True)
        except StreamRecError as error:
            self._close()
            return Reply(batch.number, problem=error.message)
        except Exception as error:
            self._close()
            return Reply(batch.number, problem=f"live catalogue: {error!r}")
        return Reply(batch.number, version=applied.version, changed=list(applied.changed))

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
