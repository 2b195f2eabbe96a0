"""The live catalogue in one serving process: what it last read of it, and the models with it over them.

Flags take effect by themselves, in what all rungs look at. Everything else makes new models, which the
process swaps in whole: what is under way ends with those that it began with.
"""

import threading
from pathlib import Path

from bentos.catalogue.overlay import overlaid, set_flags, with_own_flags
from bentos.catalogue.store import CatalogueReader, News
from bentos.recommender.health import Component
from bentos.recommender.models import Models
from contracts.errors import Unreachable
from contracts.live_items import ItemFacts, ItemState


class LiveCatalogue:
    """`look` and the making of new models may run at the same time, each in one thread: a flag waits for nothing.

    `loaded`: the catalogue was read at least once, or there is none. Until then nothing may be served: which items have
    been taken down is not known.
    """

    def __init__(self, home: Path, base: Models) -> None:
        self.models = with_own_flags(base)
        self.loaded = False
        self.version = 0
        self.coming = 0  # the same, but ahead while flags are being set: none that a request has met is newer
        self.behind = False  # there is more than flags that `models` does not show
        self._base = base
        self._reader = CatalogueReader(home)
        self._identity = ""
        self._problem = ""
        self._states: dict[str, ItemState] = {}
        self._next: Models | None = None  # made, and not yet served from
        # The version that `models`, or the next ones, show, and when they were made on the data set's clock.
        self.laid = self._next_laid = (0, 0)
        self._lock = threading.Lock()

    @property
    def component(self) -> Component:
        if not self.loaded:
            return Component("unhealthy", f"{self._problem}; nothing is served before it can be read")
        at = f"version {self.version}"
        return Component("degraded", f"{at}: {self._problem}") if self._problem else Component("healthy", at)

    @property
    def identity(self) -> str:
        """Of the file that `coming` is a version of; empty: there is none."""
        return self._identity

    def begin(self) -> Models:
        """What there is at the start of a process, in `models` from the first."""
        self.look()
        if self.behind:
            self.rebuild()
            self.adopt()
        return self.models

    def look(self) -> None:
        """Read what is new. Flags hold from here on."""
        try:
            news = self._reader.news(self._identity, self.version)
        except Unreachable as error:
            self._problem = error.message
            return
        if self._identity and news.identity != self._identity:
            # Nobody takes flags back by losing a file. After a restart the file that is there holds.
            what = "was replaced" if news.identity else "is gone"
            self._problem = f"{self._reader.path} {what}; what it said before holds until this process starts again"
            return
        self._problem = ""
        if news.version != self.version:
            with self._lock:
                self._take(news)
        self.loaded = True

    def rebuild(self) -> Models:
        """Models with all states over them: passes over the catalogue, to be made beside the requests. Flags that come
        in the meantime hold in both; `adopt` says that the new ones are served from.
        """
        with self._lock:
            self.behind = False
            states, base = dict(self._states), self._base
            laid = self.version, base.now_us()
        models = overlaid(base, states, laid[1])
        with self._lock:
            set_flags(models.catalogue, base.catalogue.is_flagged, self._states.values())
            self._next, self._next_laid = models, laid
        return models

    def rebase(self, base: Models) -> None:
        """Put what is known over other models, in which more could be loaded: the next `rebuild` does."""
        with self._lock:
            self._base, self.behind = base, True

    def adopt(self) -> None:
        with self._lock:
            if self._next is not None:
                self.models, self.laid, self._next = self._next, self._next_laid, None

    def close(self) -> None:
        self._reader.close()

    def _take(self, news: News) -> None:
        known = self._states
        self.behind |= any(state.facts != _facts(known.get(state.item_id)) for state in news.states)
        known.update((state.item_id, state) for state in news.states)
        self.coming, self._identity = news.version, news.identity
        for models in (self.models, self._next):
            if models is not None:
                set_flags(models.catalogue, self._base.catalogue.is_flagged, news.states)
        self.version = news.version


def _facts(state: ItemState | None) -> ItemFacts | None:
    return None if state is None else state.facts
