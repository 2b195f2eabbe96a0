"""The fake: the same promises as the real stores, in a dictionary. For tests, parity and `online_store = "memory"`."""

from collections import Counter
from collections.abc import Mapping, Sequence

from contracts.errors import Unreachable
from features.online import codec
from features.online.base import Interaction, ItemSnapshot, PrecomputedList, Stamped, UserState
from features.streaming import push


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

    async def read_user(self, user_id: str) -> UserState:
        self._reach()
        return codec.user_state(
            user_id,
            self._rows.get(user_id, {}),
            self._last.get(user_id, ()),
            self._lists.get(user_id),
            self._watermark,
            self.corrupt,
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

    def advance_watermark(self, until_us: int) -> None:
        self._reach()
        self._watermark = max(self._watermark or 0, until_us)

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
