"""What is made of an item from what was done with it lately: features of the ranker, and the order of two sources.

The consumer has the counts laid down in a file every half minute; each process takes it in beside the requests. N
items.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.health import Component
from bentos.recommender.models import Models, RetrievalModels
from bentos.telemetry.item_counts import counts_path, read_counts
from contracts.catalogue import Catalogue
from contracts.errors import StreamRecError
from features.item_counts import ItemCounts
from features.refreshed import Refreshed, refreshed

TRENDING_HALF_LIFE_US = 7 * 86_400_000_000  # of the counts in a bundle
# So many positive events in a category weigh as much as what a bundle knows of its items.
CONTENT_PRIOR = 200.0


@dataclass(frozen=True, slots=True)
class Applied:
    """models: with sources in their new order. columns: item features as of `moment_us`. counts_us: the moment of the
    counts; at_us: when they were applied, on the data set's clock."""

    models: Models
    columns: Mapping[str, NDArray[np.float32]]
    moment_us: int
    counts_us: int
    at_us: int


class Statistics:
    """One thread at a time."""

    def __init__(self, home: Path) -> None:
        self.behind = False  # there are counts that were not applied
        self._home = home
        self._stamp: tuple[int, int] | None = None
        self._counts: ItemCounts | None = None
        self._problem = ""

    @property
    def component(self) -> Component:
        return Component("degraded", self._problem) if self._problem else Component("healthy")

    def look(self) -> None:
        """Take in newer counts; a file that cannot be read changes nothing."""
        try:
            found = counts_path(self._home).stat()
            stamp = (found.st_ino, found.st_mtime_ns)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._counts = read_counts(self._home)
        except FileNotFoundError:
            return
        except (StreamRecError, OSError) as error:
            self._problem = str(error)
            return
        self.behind = self._counts is not None

    def apply(
        self, models: Models, base: Mapping[str, NDArray[np.float32]], stamps_us: Mapping[str, int]
    ) -> Applied | None:
        """`applied` with the newest counts; None without any, or where they say nothing to this Bento."""
        self.behind = False
        if self._counts is None:
            return None
        try:
            made = applied(self._counts, models, base, stamps_us, models.now_us())
        except StreamRecError as error:  # a rule of the data set that counts cannot answer
            self._problem = error.message
            return None
        self._problem = ""
        return made


def applied(
    counts: ItemCounts,
    models: Models,
    base: Mapping[str, NDArray[np.float32]],
    stamps_us: Mapping[str, int],
    now_us: int,
) -> Applied | None:
    """The counts over these models at `now_us` of the data set's clock; None where they say nothing to this Bento.

    base, stamps_us: item features of the snapshot, for the rows that it knows, and their moments.

    Raises:
        UsageError: as `features.refreshed.refreshed`.
    """
    retrieval = models.retrieval
    if retrieval is None or retrieval.meaning is None:
        return None
    catalogue = models.catalogue
    rows = catalogue.index.lookup_many(counts.item_ids)
    longer = {n: _longer(c, len(catalogue)) for n, c in base.items() if c.ndim == 1}
    made = refreshed(counts, rows, retrieval.meaning, longer, stamps_us, len(catalogue), now_us)
    moment_us = now_us if models.clock == "log_end" else counts.now_us
    risen = replace(models, retrieval=_risen(retrieval, catalogue, made, now_us))
    return Applied(risen, made.columns, moment_us, counts.now_us, now_us)


def _risen(models: RetrievalModels, catalogue: Catalogue, made: Refreshed, now_us: int) -> RetrievalModels:
    """Trending: the bundle's counts, decayed to now, or the week's events where they are more. Content: the bundle's
    standings, and the more positive events a category has had this week, the more theirs.
    """
    trending, standing = models.trending, models.content_items
    wishes = made.wishes.astype(np.float32)
    if trending is not None:
        passed = max(now_us - models.trained_until_us, 0) / TRENDING_HALF_LIFE_US
        trending = np.maximum(trending * np.float32(2.0**-passed), wishes)
    if standing is not None:
        per_category = np.bincount(catalogue.category, made.wishes, len(catalogue.categories))
        weight = per_category / (per_category + CONTENT_PRIOR)
        of_item = weight[catalogue.category]
        shares = made.wishes / np.maximum(per_category, 1e-9)[catalogue.category]
        standing = ((1 - of_item) * standing + of_item * shares).astype(np.float32)
    return replace(models, trending=trending, content_items=standing)


def _longer(column: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    return np.concatenate([column, np.full(n - len(column), np.nan, np.float32)]) if len(column) < n else column
