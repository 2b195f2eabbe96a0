"""The live catalogue laid over a Bento's own: models with the items that came later and the facts that changed.

N items of the Bento, M live items. Rows of the Bento stay what they are; live items are the rows from N on, by ordinal,
which all processes share and no later change alters: a row that a process has given out stays that item's row. What
training made of an item (vectors) live items have not: gathers give zeros for them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from bentos.recommender.models import Models, RetrievalModels
from contracts.catalogue import Catalogue, Flags
from contracts.ids import GrownIndex, PackedIds, ids_at, packed_at
from contracts.live_items import ItemState
from features.standing import entry_standing


class _Names:
    """Names with their numbers: those of the Bento first, new ones behind."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._at = {name: at for at, name in enumerate(self.names)}

    def number(self, name: str) -> int:
        at = self._at.setdefault(name, len(self.names))
        if at == len(self.names):
            self.names.append(name)
        return at


class _Joined(Sequence[str]):
    def __init__(self, first: Sequence[str], more: Sequence[str]) -> None:
        self._first, self._more, self._n = first, list(more), len(first)

    def __len__(self) -> int:
        return self._n + len(self._more)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if at < 0:
            at += len(self)
        return self._first[at] if at < self._n else self._more[at - self._n]

    def take(self, rows: NDArray[np.int32]) -> list[str]:
        if self._all_own(rows):
            return ids_at(self._first, rows)
        of_bento = rows < self._n
        names = iter(ids_at(self._first, rows[of_bento]))  # many at once cost a fraction of what each costs alone
        return [next(names) if row < self._n else self._more[row - self._n] for row in rows.tolist()]

    def pack(self, rows: NDArray[np.int32]) -> PackedIds:
        if self._all_own(rows):
            return packed_at(self._first, rows)
        return PackedIds.of(self.take(rows))

    def _all_own(self, rows: NDArray[np.int32]) -> bool:
        """None of the items that came after the Bento."""
        return not len(rows) or int(rows.max()) < self._n


def additions(catalogue: Catalogue, states: Iterable[ItemState]) -> list[ItemState]:
    """The items that were put and that `catalogue`, a Bento's own, does not know, by ordinal."""
    put = sorted((state for state in states if state.ordinal), key=lambda state: state.ordinal)
    rows = catalogue.index.lookup_many([state.item_id for state in put])
    return [state for state, row in zip(put, rows.tolist(), strict=True) if row < 0]


def set_flags(catalogue: Catalogue, own: NDArray[np.bool_], states: Iterable[ItemState]) -> None:
    """Change the catalogue's flags, at once, where these states say something of them.

    own: bool [N], the flags that the Bento was built with.
    """
    states, flags = list(states), catalogue.is_flagged.copy()
    rows = catalogue.index.lookup_many([state.item_id for state in states])
    for state, row in zip(states, rows.tolist(), strict=True):
        if row >= 0:
            built = bool(own[row]) if row < len(own) else False
            flags[row] = state.removed or (built if state.flagged is None else state.flagged)
    catalogue.flags.now = flags


def overlaid(base: Models, states: Mapping[str, ItemState], now_us: int) -> Models:
    """`base` with the states over it; everything that has one entry an item is longer, but for big arrays [N, D].

    The same for the same states and moment, in whatever order a process has come to know them. now_us: on the data
    set's clock.
    """
    catalogue = _catalogue(base, sorted(states.values(), key=lambda state: state.ordinal))
    retrieval = base.retrieval
    if retrieval is not None:
        retrieval = _retrieval(retrieval, base, catalogue, now_us)
    return replace(base, catalogue=catalogue, retrieval=retrieval)


def with_own_flags(models: Models) -> Models:
    """The same with flags of its own, which may change."""
    return replace(models, catalogue=replace(models.catalogue, flags=Flags(models.catalogue.is_flagged)))


def _catalogue(base: Models, states: Sequence[ItemState]) -> Catalogue:
    own = base.catalogue
    n, added = len(own), additions(own, states)
    categories, creators = _Names(own.categories), _Names(own.creators)
    m = len(added)
    category = np.concatenate([own.category, np.full(m, -1, np.int32)])
    creator = np.concatenate([own.creator, np.full(m, -1, np.int32)])
    price = np.concatenate([own.price, np.full(m, np.nan, np.float32)])
    published_us = np.concatenate([own.published_us, np.zeros(m, np.int64)])
    is_promoted = np.concatenate([own.is_promoted, np.zeros(m, np.bool_)])
    index = GrownIndex(own.index, [state.item_id for state in added])
    put = [state for state in states if state.facts is not None]
    for state, row in zip(put, index.lookup_many([state.item_id for state in put]).tolist(), strict=True):
        facts = state.facts
        assert facts is not None  # noqa: S101 - chosen above
        category[row] = categories.number(facts.category)
        creator[row] = -1 if facts.creator_id is None else creators.number(facts.creator_id)
        price[row] = np.nan if facts.price is None else facts.price
        is_promoted[row] = facts.is_promoted
        if facts.published_us is not None:
            published_us[row] = facts.published_us
        elif row >= n:
            # On the clock of a log that ended years ago, now is its end: the item is new, not of the future.
            first = min(state.first_us, base.log_end_us) if base.clock == "log_end" else state.first_us
            published_us[row] = first
    catalogue = Catalogue(
        item_ids=_Joined(own.item_ids, [state.item_id for state in added]),
        index=index,
        category=category,
        categories=categories.names,
        creator=creator,
        creators=creators.names,
        price=price,
        published_us=published_us,
        is_promoted=is_promoted,
        flags=Flags(np.concatenate([own.is_flagged, np.zeros(m, np.bool_)])),
    )
    set_flags(catalogue, own.is_flagged, states)
    return catalogue


def _retrieval(models: RetrievalModels, base: Models, catalogue: Catalogue, now_us: int) -> RetrievalModels:
    new = len(catalogue) - len(base.catalogue)
    parts: dict[str, Any] = {
        "item_features": {name: _longer(column, new, np.nan) for name, column in models.item_features.items()}
    }
    if models.trending is not None:
        parts["trending"] = _longer(models.trending, new, 0.0)
    if models.creator_exposure is not None:  # a new creator has not been shown
        parts["creator_exposure"] = _longer(
            models.creator_exposure, len(catalogue.creators) - len(models.creator_exposure), 0.0
        )
    if models.content_items is not None:
        parts["content_items"] = entry_standing(
            models.content_items, catalogue.category, catalogue.published_us, now_us
        )
    return replace(models, **parts)


def _longer(array: NDArray[np.float32], n: int, value: float) -> NDArray[np.float32]:
    return np.concatenate([array, np.full(n, value, np.float32)]) if n else array
