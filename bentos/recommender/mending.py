"""Parts whose files changed under a running process: taken up once they are there, given up once they are damaged.

Most files are mapped, so what is written into one is at once what requests read. A file that was removed, or replaced
by another, stays mapped as it was.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from bentos.recommender.models import Models
from registry.artifacts import Kind, damaged

log = logging.getLogger("streamrec.serving")

Damaged = Mapping[Kind, frozenset[str]]


class _File(NamedTuple):
    inode: int
    written_ns: int
    size: int


_Files = dict[tuple[Kind, str], _File]


class Mending:
    """
    Args:
        load: as at the start, but without files that are `damaged`; everything again, as a part must fit the others.
            Arrays are mapped, so that is cheap.
        folders: of the bundles. One that was not there at all is found at a restart only.
    """

    def __init__(self, load: Callable[..., Models], folders: Mapping[Kind, Path | None]) -> None:
        self._load = load
        self._folders = {kind: folder for kind, folder in folders.items() if folder is not None}
        self._opened = self._files()  # as this process has them
        self._seen: _Files | None = None

    @property
    def gone(self) -> Mapping[str, str]:
        """`KIND.files` → what a next process would not find; this one goes on with what it has of it."""
        seen = self._opened if self._seen is None else self._seen
        lost: dict[str, list[str]] = {}
        for kind, name in self._opened.keys() - seen.keys():
            lost.setdefault(f"{kind}.files", []).append(name)
        why = "gone from the disk: this process goes on with what it has of them, the next one could not"
        return {part: f"{', '.join(sorted(names))}: {why}" for part, names in lost.items()}

    def look(self, problems: Mapping[str, str]) -> Models | None:
        """Other models, with parts that can be had by now or without those whose files are damaged; None: no file has
        changed, or it makes no difference. Any thread.
        """
        files = self._files()
        if files == self._seen:
            return None
        self._seen = files  # as it is before loading: what changes meanwhile is looked at the next time
        bad = self._damaged(files)
        if not problems and not bad:
            return None
        models = self._load(damaged=bad)
        better = models.problems.keys() < problems.keys()
        if not better and not (bad and models.problems != problems):
            return None
        kept = {(kind, name): self._opened[kind, name] for kind, names in bad.items() for name in names}
        self._opened = files | kept
        if found := problems.keys() - models.problems.keys():
            log.warning("loaded again: %s", ", ".join(sorted(found)))
        for part in sorted(models.problems.keys() - problems.keys()):
            log.error("given up, as its file has changed: %s: %s", part, models.problems[part])
        return models

    def _damaged(self, files: _Files) -> Damaged:
        """Files that this process has open, and that were written to since and are not what was sealed."""
        found: dict[Kind, frozenset[str]] = {}
        for kind, folder in self._folders.items():
            written = [name for (of, name), file in files.items() if of == kind and self._written((of, name), file)]
            bad = damaged(folder, written)
            self._opened |= {(kind, name): files[kind, name] for name in written if name not in bad}
            if bad:
                found[kind] = bad
        return found

    def _written(self, key: tuple[Kind, str], file: _File) -> bool:
        before = self._opened.get(key)
        return before is not None and before.inode == file.inode and before != file

    def _files(self) -> _Files:
        found = {}
        for kind, folder in self._folders.items():
            for path in folder.rglob("*"):
                try:
                    stat = path.stat()
                except OSError:
                    continue
                found[kind, str(path.relative_to(folder))] = _File(stat.st_ino, stat.st_mtime_ns, stat.st_size)
        return found
