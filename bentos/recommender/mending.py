"""Parts that could not be loaded at the start, loaded again once their files have changed."""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from bentos.recommender.models import Models

log = logging.getLogger("streamrec.serving")


class Mending:
    """
    Args:
        load: as at the start; everything again, as a part must fit the others. Arrays are mapped, so that is cheap.
        folders: of the bundles. One that was not there at all is found at a restart only.
    """

    def __init__(self, load: Callable[[], Models], folders: Iterable[Path | None]) -> None:
        self._load = load
        self._folders = [folder for folder in folders if folder is not None]
        self._seen: frozenset[tuple[str, int, int]] | None = None

    def look(self, problems: Mapping[str, str]) -> Models | None:
        """Better models, or None: nothing is wrong, no file has changed, or as much is wrong as before. Any thread."""
        if not problems:
            return None
        files = self._files()
        if files == self._seen:
            return None
        self._seen = files  # as it is before loading: what changes meanwhile is looked at the next time
        models = self._load()
        if not models.problems.keys() < problems.keys():
            return None
        log.warning("loaded again: %s", ", ".join(sorted(problems.keys() - models.problems.keys())))
        return models

    def _files(self) -> frozenset[tuple[str, int, int]]:
        """Name, time and size of every file of the bundles."""
        found = []
        for folder in self._folders:
            for path in folder.rglob("*"):
                try:
                    stat = path.stat()
                except OSError:
                    continue
                found.append((str(path), stat.st_mtime_ns, stat.st_size))
        return frozenset(found)
