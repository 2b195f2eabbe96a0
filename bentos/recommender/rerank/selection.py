"""Choosing the window of a slate: a cap a category and two floors, exactly, best scores first.

The windows that a cap allows are the independent sets of a partition matroid, and any independent set extends to a
largest one. So a start can be completed to a full window that keeps both floors exactly when (1) enough capacity is
left to fill it and (2) some independent set within the places left keeps the floors. For (2) an item is of one of four
types: neither, fresh, under-exposed creator, both. For each number of items that serve both floors, the rest of either
floor comes from items that serve it alone, and the three kinds must find room in the categories: a flow from three
suppliers, whose min-cut condition (Gale 1957) is seven inequalities between sums of min(capacity, items) over
categories. These sums are kept up to date, so that a check costs a few microseconds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from contracts.rules import Relaxable

FRESH, CREATOR = 1, 2  # bits of an item's type
PIECE = 64  # items that become Python numbers at a time
SCANNED = 4  # windows that are looked through for a start that needs no planning
# Sums are kept over sets of types: the seven non-empty subsets of {fresh, creator, both}, then all four types.
GROUPS = ((1,), (2,), (1, 2), (3,), (1, 3), (2, 3), (1, 2, 3), (0, 1, 2, 3))
GROUPS_OF = tuple(tuple(g for g, group in enumerate(GROUPS) if kind in group) for kind in range(4))
MEMBER = np.array([[kind in group for group in GROUPS] for kind in range(4)], np.int64)


@dataclass(frozen=True, slots=True)
class Targets:
    """What a window must keep: at most `cap` of a category, at least `fresh` and `creator` items of these kinds."""

    cap: int
    fresh: int
    creator: int


class _Room:
    """What can still be chosen: items left by category and type, capacity left by category, sums over both."""

    def __init__(self, counts: NDArray[np.int64], cap: int) -> None:
        self._sums: NDArray[np.int64] = counts @ MEMBER
        self._items: dict[int, list[int]] = {}  # of the categories that were touched
        self.cap = [cap] * len(counts)
        self._room: list[int] = np.minimum(self._sums, cap).sum(axis=0).tolist()
        self._both: int = int(counts[:, 3].sum())

    def take(self, category: int, kind: int) -> None:
        """Choose one item."""
        self._move(category, kind, 1)

    def give_back(self, category: int, kind: int) -> None:
        self._move(category, kind, -1)

    def _move(self, category: int, kind: int, n: int) -> None:
        items, cap, room = self._items.get(category), self.cap[category], self._room
        if items is None:
            items = self._items[category] = self._sums[category].tolist()
        before = [cap if cap < count else count for count in items]
        for g in GROUPS_OF[kind]:
            items[g] -= n
        cap -= n
        for g, count in enumerate(items):
            room[g] += (cap if cap < count else count) - before[g]
        self.cap[category] = cap
        self._both -= n * (kind == 3)

    def too_small(self, places: int, fresh: int, creator: int, without: int) -> bool:
        """True: with an item of type `without` taken the floors do not fit into the places, whatever the categories."""
        return fresh + creator - min(self._both - (without == 3), fresh, creator) > places

    def completes(self, places: int, fresh: int, creator: int) -> bool:
        """True: `places` more items can be chosen, with at least `fresh` and `creator` of these kinds among them."""
        only_fresh, only_creator, either, both, with_fresh, with_creator, special, everything = self._room
        if everything < places:
            return False
        for b in range(min(max(fresh, creator), places) + 1):
            f, r = max(0, fresh - b), max(0, creator - b)
            if (
                f + r + b <= places
                and f <= only_fresh
                and r <= only_creator
                and f + r <= either
                and b <= both
                and f + b <= with_fresh
                and r + b <= with_creator
                and f + r + b <= special
            ):
                return True
        return False


def planned(
    category: NDArray[np.int64], kind: NDArray[np.int64], places: int, wanted: Targets, relax: Sequence[Relaxable]
) -> tuple[list[int], Targets]:
    """What `choose` chooses for the targets that are `reachable`, and these."""
    counts = type_counts(category, kind)
    room = _Room(counts, wanted.cap)
    if room.completes(places, wanted.fresh, wanted.creator):  # as a rule; asking has not touched the room
        return _chosen(category, kind, room, places, wanted), wanted
    targets = reachable(counts, places, wanted, relax)
    return choose(category, kind, counts, places, targets), targets


def reachable(counts: NDArray[np.int64], places: int, wanted: Targets, relax: Sequence[Relaxable]) -> Targets:
    """The targets that a full window can keep together: `wanted`, or with rules given way in the order `relax`.

    A rule gives way only as far as it must, and never for the sake of one that stands before it in `relax`. counts:
    int64 [categories, 4], items by category and type.
    """
    if _Room(counts, wanted.cap).completes(places, wanted.fresh, wanted.creator):
        return wanted
    targets = Targets(cap=places, fresh=0, creator=0)  # nothing asked for
    for rule in reversed(relax):  # the dearest first
        for tried in _steps(rule, wanted, targets, places):
            if _Room(counts, tried.cap).completes(places, tried.fresh, tried.creator):
                targets = tried
                break
    return targets


def _steps(rule: Relaxable, wanted: Targets, targets: Targets, places: int) -> list[Targets]:
    """`targets` with one rule on top, from what is wanted down to nothing."""
    if rule == "category_cap":
        return [replace(targets, cap=cap) for cap in range(wanted.cap, max(wanted.cap, places) + 1)]
    if rule == "fresh_floor":
        return [replace(targets, fresh=n) for n in range(wanted.fresh, -1, -1)]
    return [replace(targets, creator=n) for n in range(wanted.creator, -1, -1)]


def first_that_fit(
    category: NDArray[np.int64], kind: NDArray[np.int64], places: int, wanted: Targets
) -> list[int] | None:
    """The first items that the cap lets in, where these keep both floors as they are: what `choose` would choose, since
    each start of them can be completed by the rest. None: not so.
    """
    taken: dict[int, int] = {}
    chosen: list[int] = []
    fresh, creator = wanted.fresh, wanted.creator
    n = SCANNED * places
    for i, (c, t) in enumerate(zip(category[:n].tolist(), kind[:n].tolist(), strict=True)):
        of_category = taken.get(c, 0)
        if of_category == wanted.cap:
            continue
        taken[c] = of_category + 1
        chosen.append(i)
        fresh -= t & FRESH
        creator -= (t & CREATOR) >> 1
        if len(chosen) == places:
            return chosen if fresh <= 0 and creator <= 0 else None
    return None


def choose(
    category: NDArray[np.int64], kind: NDArray[np.int64], counts: NDArray[np.int64], places: int, targets: Targets
) -> list[int]:
    """Positions of a full window, ascending: at each step the first item with which it can still be completed.

    category: int64 [K], from 0; kind: int64 [K], type bits; K ≥ places, best first; counts: their `type_counts`;
    `targets` from `reachable`.
    """
    return _chosen(category, kind, _Room(counts, targets.cap), places, targets)


def _chosen(
    category: NDArray[np.int64], kind: NDArray[np.int64], room: _Room, places: int, targets: Targets
) -> list[int]:
    fresh, creator = targets.fresh, targets.creator
    chosen: list[int] = []
    hopeless: set[tuple[int, int]] = set()  # once an item cannot be completed, its like never can
    ahead = np.arange(len(kind))
    while True:
        for i, c, t in _in_pieces(ahead, category, kind):
            if len(chosen) == places:
                return chosen
            if room.cap[c] == 0 or (c, t) in hopeless:
                continue
            left = places - len(chosen) - 1
            fresh_left = max(0, fresh - bool(t & FRESH))
            creator_left = max(0, creator - bool(t & CREATOR))
            floors = fresh_left or creator_left
            if floors and room.too_small(left, fresh_left, creator_left, without=t):
                ahead = ahead[(ahead > i) & (kind[ahead] != t)]  # no item of this type any more: often most of them
                break
            room.take(c, t)
            if floors and not room.completes(left, fresh_left, creator_left):
                room.give_back(c, t)
                hopeless.add((c, t))
                continue
            chosen.append(i)
            fresh, creator = fresh_left, creator_left
        else:
            return chosen


def _in_pieces(
    ahead: NDArray[np.int64], category: NDArray[np.int64], kind: NDArray[np.int64]
) -> Iterator[tuple[int, int, int]]:
    """Position, category and type of the items ahead: as a rule only the first few are looked at."""
    for start in range(0, len(ahead), PIECE):
        piece = ahead[start : start + PIECE]
        yield from zip(piece.tolist(), category.take(piece).tolist(), kind.take(piece).tolist(), strict=True)


def type_counts(category: NDArray[np.int64], kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [categories, 4]: items by category and type."""
    n = int(category.max()) + 1 if len(category) else 0
    return np.bincount(category * 4 + kind, minlength=4 * n).reshape(n, 4)
