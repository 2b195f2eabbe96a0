"""The fake: the same promises as the real stores, in a dictionary. For tests, parity and `online_store = "memory"`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.errors import Unreachable
from contracts.events import Event
from features.decayed import Decayed
from features.item_counts import (
    HOUR_US,
    KEEP_DECAYED_US,
    KEEP_HOURS,
    Count,
    ItemCounts,
    Key,
    count_events,
    decay,
    item_counts,
    shown,
    window,
)
from features.online import codec
from features.online.base import Interaction, ItemSnapshot, PrecomputedList, Stamped, UserState
from features.sessions import Session
from features.streaming import fold, impression_events, push


class MemoryStore:
    """`away = True` makes every call raise `Unreachable`. Values pass through the codec, as in the real ones."""

    def __init__(self) -> None:
        self.corrupt: Counter[str] = Counter()
        self.away = False
        self._rows: dict[str, dict[str, tuple[int, bytes]]] = {}
        self._last: dict[str, tuple[Interaction, ...]] = {}
        self._lists: dict[str, bytes] = {}
        self._snapshot: bytes | None = None
        self._watermark: int | None = None
        self._sessions: dict[str, tuple[Session, ...]] = {}
        self._positions: dict[str, str] = {}
        self._sources: set[str] = set()
        self._hours: dict[tuple[int, Key], Count] = {}
        self._decayed: dict[Key, Decayed] = {}

    async def read_user(self, user_id: str) -> UserState:
        self._reach()
        return codec.user_state(
            user_id,
            self._rows.get(user_id, {}),
            self._last.get(user_id, ()),
            self._lists.get(user_id),
            self._watermark,
            self.corrupt,
            codec.encode_sessions(self._sessions.get(user_id, ())),
        )

    def write_users(self, rows: Mapping[str, Mapping[str, Stamped]]) -> None:
        self._reach()
        for user_id, features in rows.items():
            new = {n: (s.timestamp_us, codec.encode_value(n, s.value)) for n, s in features.items()}
            self._rows[user_id] = codec.merge_row(self._rows.get(user_id, {}), new)

    def append_interactions(self, rows: Sequence[tuple[str, Interaction]]) -> None:
        self._reach()
        for user_id, interaction in rows:
            self._last[user_id] = push(self._last.get(user_id, ()), interaction)
        if rows:
            self.advance_watermark(max(i.timestamp_us for _, i in rows))

    def position(self, log: str) -> str:
        self._reach()
        return self._positions.get(log, "")

    def take_in(self, log: str, events: Sequence[Event], *, after: str, to: str) -> bool:
        if self.position(log) != after:
            return False
        skip = impression_events()
        for e in events:
            both = self._last.get(e.user_id, ()), self._sessions.get(e.user_id, ())
            self._last[e.user_id], self._sessions[e.user_id] = fold(*both, e, skip)
        new = count_events(events)
        self._add_hours(new.hours)
        for key, moments in new.decays.items():
            self._decayed[key] = decay(self._decayed.get(key, Decayed()), moments)
        if events:
            self.advance_watermark(max(e.timestamp_us for e in events))
        self._positions[log] = to
        return True

    def add_shown(self, source: str, hours: Mapping[tuple[int, str], int]) -> bool:
        self._reach()
        if source in self._sources:
            return False
        self._sources.add(source)
        self._add_hours(shown(hours))
        return True

    def _add_hours(self, hours: Mapping[tuple[int, Key], Count]) -> None:
        for at, count in hours.items():
            self._hours[at] = count.plus(self._hours[at]) if at in self._hours else count

    def read_item_counts(self, now_us: int) -> ItemCounts:
        self._reach()
        first, last = window(now_us)
        week: dict[Key, Count] = {}
        within = [hour for hour, _ in self._hours if first <= hour <= last]
        for (hour, key), count in self._hours.items():
            if first <= hour <= last:
                week[key] = count.plus(week[key]) if key in week else count
        return item_counts(now_us, self._decayed, week, min(within, default=None))

    def forget_counts(self, now_us: int) -> None:
        self._reach()
        oldest = now_us // HOUR_US - KEEP_HOURS
        self._hours = {at: count for at, count in self._hours.items() if at[0] >= oldest}
        self._decayed = {k: d for k, d in self._decayed.items() if d.timestamp_us >= now_us - KEEP_DECAYED_US}

    def advance_watermark(self, until_us: int) -> None:
        self._reach()
        self._watermark = max(self._watermark or 0, until_us)

    def forget_user(self, user_id: str) -> int:
        self._reach()
        kept: tuple[dict[str, Any], ...] = (self._rows, self._last, self._sessions, self._lists)
        return sum(rows.pop(user_id, None) is not None for rows in kept)

    def publish_lists(self, snapshot: str, lists: Mapping[str, PrecomputedList]) -> None:
        self._reach()
        self._lists = {user_id: codec.encode_list(made) for user_id, made in lists.items()}

    def write_item_snapshot(self, snapshot: ItemSnapshot) -> None:
        self._reach()
        self._snapshot = codec.encode_snapshot(snapshot)

    def read_item_snapshot(self, newer_than: str | None = None) -> ItemSnapshot | None:
        self._reach()
        found = None if self._snapshot is None else codec.decode_snapshot(self._snapshot, self.corrupt)
        return None if found is None or found.version == newer_than else found

    def close(self) -> None:
        pass

    def _reach(self) -> None:
        if self.away:
            raise Unreachable("the in-memory store was told to be away")
