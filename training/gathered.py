"""Rows that the reference of a model version is made of, gathered while training looks at them anyway.

n rows of one user, K candidates, F columns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bentos.recommender.types import Candidates, Slate, User
from contracts.catalogue import Catalogue
from features.frame import REGISTERED, WORDS, feature_columns, taken_by_default

Origin = Literal["slate", "candidate"]


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one user at the moment. rows: float32 [n, F]; items: catalogue rows; scores: NaN before there is one."""

    user: int
    items: NDArray[np.int32]
    rows: NDArray[np.float32]
    labels: NDArray[np.int8]
    scores: NDArray[np.float32]
    defaults: Mapping[str, bool]


@dataclass(slots=True)
class Gathered:
    """Rows of one moment. words: column → a word for each user of the test set, empty unknown."""

    origin: Origin
    moment_us: int
    catalogue: Catalogue
    user_ids: Sequence[str]
    words: Mapping[str, Sequence[str]]
    at_most: int
    random: np.random.Generator
    _parts: list[_Part] = field(default_factory=list)
    _chosen: frozenset[int] = frozenset()
    _each: int = 0

    def expect(self, users: int, each: int) -> None:
        """How many users there will be, with how many rows: who is looked at is drawn ahead."""
        wanted = min(users, max(1, self.at_most // max(each, 1)))
        self._chosen = frozenset(self.random.choice(users, wanted, replace=False).tolist()) if users else frozenset()
        self._each = each

    def slate(self, user: int, slate: Slate, wanted: NDArray[np.int64]) -> None:
        """What was shown to a user. wanted: catalogue rows of the user's targets."""
        if user not in self._chosen or slate.shown is None:
            return
        shown = slate.shown()
        rows = np.frombuffer(shown.rows, np.float32).reshape(len(shown.item_ids), -1)
        items = self.catalogue.index.lookup_many(shown.item_ids).astype(np.int32)
        labels = np.isin(items, wanted).astype(np.int8)
        scores = np.array(shown.scores, np.float32)
        self._parts.append(_Part(user, items, rows, labels, scores, taken_by_default(slate.used)))

    def candidates(
        self,
        user: int,
        profile: User,
        candidates: Candidates,
        rows: NDArray[np.float32],
        labels: NDArray[np.int8],
    ) -> None:
        """Some of what a ranker learns from. rows: float32 [K, F], aligned with `candidates`."""
        if user not in self._chosen:
            return
        at = np.sort(self.random.choice(len(rows), min(self._each, len(rows)), replace=False))
        nothing = np.full(len(at), np.nan, np.float32)
        defaults = taken_by_default(profile.used)
        self._parts.append(_Part(user, candidates.items[at], rows[at], labels[at], nothing, defaults))

    def table(self, score: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None) -> pa.Table | None:
        """The rows, in the order in which they came; None without any. score: for rows that have none yet."""
        if not self._parts:
            return None
        rows = np.concatenate([part.rows for part in self._parts])
        items = np.concatenate([part.items for part in self._parts])
        counts = [len(part.items) for part in self._parts]
        owner = np.repeat([part.user for part in self._parts], counts)
        scores = np.concatenate([part.scores for part in self._parts])
        if score is not None and np.isnan(scores).all():
            scores = score(rows)
        slate = self.origin == "slate"
        places = np.concatenate([np.arange(1, n + 1) for n in counts])
        words: dict[str, Sequence[str | None]] = {
            name: [values[user] for user in owner.tolist()] for name, values in self.words.items()
        }
        catalogue = self.catalogue
        words["category"] = [catalogue.categories[at] for at in catalogue.category[items].tolist()]
        flags = {
            name: np.repeat([part.defaults.get(name, False) for part in self._parts], counts)
            for name in REGISTERED
            if any(name in part.defaults for part in self._parts)
        }
        ids = list(catalogue.item_ids)
        others = {
            name: pa.array([word or None for word in column], pa.string())
            for name, column in words.items()
            if name not in WORDS
        }
        row_words = {name: words.get(name, [None] * len(rows)) for name in ("category", "country", "device")}
        return pa.table(
            {
                "timestamp": pa.array(np.full(len(rows), self.moment_us), pa.timestamp("us", tz="UTC")),
                "user_id": pa.array([self.user_ids[user] for user in owner.tolist()], pa.string()),
                "item_id": pa.array([ids[item] for item in items.tolist()], pa.string()),
                "origin": pa.array([self.origin] * len(rows), pa.string()),
                "position": pa.array(places if slate else [None] * len(rows), pa.int32()),
                "label": pa.array(np.concatenate([part.labels for part in self._parts]), pa.int8()),
                "score": pa.array(scores, pa.float32(), mask=np.isnan(scores)),
                **feature_columns(rows, row_words, flags),
                **others,
            }
        )
