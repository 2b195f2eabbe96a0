"""What nobody may be shown, by id: for a gateway, which answers from slates of its own when no Bento does."""

from pathlib import Path

from bentos.catalogue.store import CatalogueReader
from contracts.errors import Unreachable


class Withheld:
    """`ids` None: the catalogue could not be read so far, so that nothing is known to be allowed."""

    def __init__(self, home: Path) -> None:
        self.ids: frozenset[str] | None = None
        self.problem: str | None = None
        self._reader = CatalogueReader(home)
        self._identity, self._version = "", 0

    def look(self) -> None:
        """Read what is new. A file that is gone or replaced takes nothing back: both hold together."""
        try:
            news = self._reader.news(self._identity, self._version)
        except Unreachable as error:
            self.problem = error.message
            return
        gone = bool(self._identity) and not news.identity
        self.problem = f"{self._reader.path} is gone; what it said before holds" if gone else None
        if gone:
            return
        replaced = bool(self._identity) and news.identity != self._identity
        allowed = set() if replaced else {state.item_id for state in news.states if not state.withheld}
        new = {state.item_id for state in news.states if state.withheld}
        if self.ids is None or news.states:
            self.ids = (self.ids or frozenset()) - allowed | new
        self._identity, self._version = news.identity, news.version

    def close(self) -> None:
        self._reader.close()
