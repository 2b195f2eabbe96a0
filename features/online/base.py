"""What an online store must do, and the state of a user as one read gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contracts.events import Event
from features.item_counts import ItemCounts
from features.sessions import Session


@dataclass(frozen=True, slots=True)
class Stamped:
    """A feature value and when it became true, in microseconds since 1970 UTC."""

    value: Any
    timestamp_us: int


@dataclass(frozen=True, slots=True)
class Interaction:
    item_id: str
    event: str
    timestamp_us: int


@dataclass(frozen=True, slots=True)
class PrecomputedList:
    """The ladder's `batch` rung: one user's slate with what made it."""

    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    snapshot: str  # id of the published snapshot
    model: str  # Bento tag
    feature_time_us: int
    segment: str


@dataclass(frozen=True, slots=True)
class UserState:
    """Everything the store knows of one user. `last`: at most 10, newest first.

    watermark_us: the moment up to which the stream behind `last` is known to be whole; None: nobody has said so.
    session: the newest one, which may be over (`Session.open_at`); None: no event was streamed.
    """

    user_id: str
    batch: Mapping[str, Stamped] = field(default_factory=dict)
    last: tuple[Interaction, ...] = ()
    precomputed: PrecomputedList | None = None
    watermark_us: int | None = None
    session: Session | None = None


@dataclass(frozen=True, slots=True)
class ItemSnapshot:
    """Item features as aligned columns over `item_ids` (N items).

    columns: feature name → float32 [N] (embeddings [N, D]), NaN where never computed; timestamps_us: feature name →
    when it was computed.
    """

    version: str
    item_ids: Sequence[str]
    columns: Mapping[str, NDArray[np.float32]]
    timestamps_us: Mapping[str, int]


class OnlineStore(Protocol):
    """Adapters: `sqlite.py`, `redis.py`, `memory.py` (the fake). All raise `Unreachable` when the store is away."""

    async def read_user(self, user_id: str) -> UserState:
        """One round trip. An unknown user is an empty state, not an error."""
        ...

    def write_users(self, rows: Mapping[str, Mapping[str, Stamped]]) -> None:
        """Merge batch features: user id → feature → value. Older timestamps never overwrite newer ones.

        The materialised `user_last_10_interactions` comes this way too; a read merges it with what was streamed, and
        its timestamp is a watermark.
        """
        ...

    def append_interactions(self, rows: Sequence[tuple[str, Interaction]]) -> None:
        """Update of `last` alone, for replays of a data set: newest first, cut to 10, each (item, event, time) once."""
        ...

    def position(self, log: str) -> str:
        """How far this store has taken in that event log; empty: nothing of it yet."""
        ...

    def take_in(self, log: str, events: Sequence[Event], *, after: str, to: str) -> bool:
        """Fold what `log` holds between two positions into every streaming feature, and move the position, in one step.

        So an event counts once, however often it is offered. False: the position is not `after` any more, since
        another process was faster; nothing has changed.
        """
        ...

    def add_shown(self, source: str, hours: Mapping[tuple[int, str], int]) -> bool:
        """Count exposures, (hour since 1970, item id) → how often. False: this source has been counted already."""
        ...

    def read_item_counts(self, now_us: int) -> ItemCounts:
        """What was done with each item lately. A pass over all of it: for the background."""
        ...

    def forget_counts(self, now_us: int) -> None:
        """Remove counts that are in no window any more."""
        ...

    def advance_watermark(self, until_us: int) -> None:
        """The stream is whole up to then, though nothing may have happened. Never goes back."""
        ...

    def forget_user(self, user_id: str) -> int:
        """Remove everything that is kept of one user; how many things there were. An unknown user is no error."""
        ...

    def publish_lists(self, snapshot: str, lists: Mapping[str, PrecomputedList]) -> None:
        """Swap the whole set of precomputed lists in one step."""
        ...

    def write_item_snapshot(self, snapshot: ItemSnapshot) -> None: ...

    def read_item_snapshot(self, newer_than: str | None = None) -> ItemSnapshot | None:
        """The newest snapshot, or None when there is none or its version is `newer_than`."""
        ...

    def close(self) -> None: ...
