"""What keeps a serving process' models and items up to date, beside its requests.

Models and funnel are swapped in whole: a request that is under way ends with those that it began with.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

import msgspec

from bentos.recommender.funnel import Funnel
from bentos.recommender.live import LiveCatalogue
from bentos.recommender.machine import blas_threads, machine
from bentos.recommender.mending import Mending
from bentos.recommender.models import Models
from bentos.recommender.statistics import Statistics
from contracts.errors import StreamRecError
from contracts.exposures import States
from contracts.memory import give_back_free_memory
from features.online.base import ItemSnapshot, OnlineStore

log = logging.getLogger("streamrec.serving")
FOLLOW_REST_S = 0.5  # between new models, at most


class Upkeep:
    """Each step may be called at any time, on the event loop; passes over the catalogue run in a thread of their own,
    as on the compute thread they would hold requests up.
    """

    def __init__(
        self,
        live: LiveCatalogue,
        statistics: Statistics,
        mending: Mending | None,
        snapshots: OnlineStore,
        keep: Callable[[ItemSnapshot], object],
        make_funnel: Callable[[Models], Funnel],
        swapped: Callable[[], None],
    ) -> None:
        """
        Args:
            mending: for files that change under this process, where their models can be loaded again.
            snapshots: of the item features. A connection of its own: one belongs to one thread.
            keep: item features that come into use, for replays.
            make_funnel: over the models that there are at the start.
            swapped: called on the loop after `models`, `funnel` or `snapshot` became another.
        """
        self.live = live
        self.statistics = statistics
        self.models = live.begin()
        self.funnel = make_funnel(self.models)
        self.snapshot: str | None = None  # version of the item features in use
        self.states = self._states_now()  # what `models` and `funnel` are made of, but for flags and item features
        self.store_problem = ""
        self._mending = mending
        self._snapshots = snapshots
        self._keep = keep
        self._swapped = swapped
        self._follow_from = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def look_at_catalogue(self) -> None:
        """Flags take effect here."""
        await asyncio.to_thread(self.live.look)

    async def follow_catalogue(self) -> None:
        """What is more than a flag."""
        await asyncio.to_thread(self.statistics.look)
        if not (self.live.behind or self.statistics.behind) or time.monotonic() < self._follow_from:
            return
        async with self._one_at_a_time:
            self.models, self.funnel, applied, seconds = await asyncio.to_thread(self._followed)
            self.live.adopt()
            self.states = self._states_now(applied)
            # A stream of changes takes a third of a core at most.
            self._follow_from = time.monotonic() + min(2 * seconds, FOLLOW_REST_S)
        self._swapped()

    def _followed(self) -> tuple[Models, Funnel, States, float]:
        """New models, a funnel over them, what counts were applied, and the CPU seconds that it took."""
        began = time.thread_time()
        models = self.live.rebuild() if self.live.behind else self.live.models
        items = self.funnel.stages.items
        made = self.statistics.apply(models, *items.snapshot)
        if made is None:
            return models, self.funnel.over(models), States(), time.thread_time() - began
        version, n_items = items.source
        counted = States(counts=made.counts_us, counts_us=made.at_us, counts_snapshot=version, counts_items=n_items)
        funnel = self.funnel.over(made.models, made.columns, made.moment_us)
        return made.models, funnel, counted, time.thread_time() - began

    def _states_now(self, counted: States | None = None) -> States:
        facts, facts_us = self.live.laid
        return msgspec.structs.replace(
            counted or States(),
            facts=facts,
            facts_us=facts_us,
            missing=tuple(sorted(self.models.problems)),
            machine=machine(),
            threads=blas_threads(),
        )

    @property
    def gone(self) -> Mapping[str, str]:
        """Files of the models in use that a next process would not find."""
        return self._mending.gone if self._mending is not None else {}

    async def mend(self) -> None:
        """Take up parts whose files are there by now, give up those whose files are damaged; `follow_catalogue` then
        serves from what is left.
        """
        if self._mending is not None:
            models = await asyncio.to_thread(self._mending.look, dict(self.models.problems))
            if models is not None:
                self.live.rebase(models)
                self.snapshot = None  # it was read for fewer items, perhaps for none

    async def refresh_items(self) -> None:
        """Fresh item features when there are any, and whether the store answers."""
        try:
            snapshot = await asyncio.to_thread(self._snapshots.read_item_snapshot, self.snapshot)
            self.store_problem = ""
            if snapshot is not None:
                async with self._one_at_a_time:
                    await asyncio.to_thread(self._keep, snapshot)
                    await asyncio.to_thread(self.funnel.set_items, snapshot)
                self.snapshot = snapshot.version
                self._swapped()
                del snapshot
                await asyncio.to_thread(give_back_free_memory)
        except StreamRecError as error:
            self.store_problem = error.message
        except Exception as error:
            self.store_problem = f"the item snapshot cannot be used: {error}"
            log.exception("the item snapshot cannot be used")
