"""What the gateway itself can answer when no Bento does: the user's last slate, then popularity.

In memory, bounded in bytes; the popularity list also in a file, so that a restarted gateway has it.
"""

import contextlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from contracts.http import RecommendedItem

FILE = "gateway-popularity.json"
SLATE_AGE_S = 600.0


class Popular(msgspec.Struct, frozen=True):
    """The champion's popularity list, best first."""

    bento: str
    taken_us: int  # wall clock
    items: list[RecommendedItem]


class Slates:
    """The newest personal slate of each user, packed; least recently used go first.

    Args:
        max_bytes: of all slates together.
    """

    def __init__(self, max_bytes: int = 16 << 20) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._slates: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._slates)

    def put(self, user_id: str, items: Sequence[RecommendedItem], now: float) -> None:
        packed = _PACK.encode(items)
        old = self._slates.pop(user_id, None)
        if old is not None:
            self._bytes -= _size(user_id, old[1])
        self._slates[user_id] = (now, packed)
        self._bytes += _size(user_id, packed)
        while self._bytes > self._max_bytes and self._slates:
            user, (_, gone) = self._slates.popitem(last=False)
            self._bytes -= _size(user, gone)

    def clear(self) -> None:
        self._slates.clear()
        self._bytes = 0

    def get(self, user_id: str, now: float) -> list[RecommendedItem]:
        """Empty where there is none, or it is older than `SLATE_AGE_S`."""
        at, packed = self._slates.get(user_id, (0.0, b""))
        return _UNPACK.decode(packed) if packed and now - at <= SLATE_AGE_S else []


class LastResort:
    """
    Args:
        file: where the popularity list outlives this process.

    withheld: ids that were taken down since the slates were made; None: that is not known, so that nothing is shown.
    """

    def __init__(self, file: Path, slates: Slates | None = None) -> None:
        self._file = file
        self.slates = slates or Slates()
        self.popular: Popular | None = None
        self.problem: str | None = None
        self.withheld: frozenset[str] | None = frozenset()

    def load(self) -> None:
        """The list of an earlier process. One that cannot be read is named in `problem`, and no list."""
        try:
            self.popular = msgspec.json.decode(self._file.read_bytes(), type=Popular)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self.problem = f"{self._file} cannot be read: {error}"

    def keep(self, popular: Popular) -> None:
        """In memory, and in the file; a disk that takes nothing is named in `problem`."""
        self.popular = popular
        part = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(msgspec.json.encode(popular))
            part.replace(self._file)
            self.problem = None
        except OSError as error:
            self.problem = f"{self._file} cannot be written: {error}"
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def slate(
        self, user_id: str, k: int, exclude: Sequence[str], now: float
    ) -> tuple[Literal["cached", "popularity"], list[RecommendedItem]]:
        """At most k items without `exclude` and what is withheld. A short cached slate is filled from popularity."""
        withheld = self.withheld
        if withheld is None:
            return "popularity", []
        banned = set(exclude)

        def allowed(item: RecommendedItem) -> bool:
            return item.item_id not in banned and item.item_id not in withheld

        cached = [item for item in self.slates.get(user_id, now) if allowed(item)][:k]
        if len(cached) >= k:
            return "cached", _placed(cached)
        banned.update(item.item_id for item in cached)
        popular = self.popular.items if self.popular else []
        more = [item for item in popular if allowed(item)][: k - len(cached)]
        # A score of the list is on another scale: below the slate's own it keeps the order of the places.
        floor = cached[-1].score if cached else None
        filled = more if floor is None else [msgspec.structs.replace(m, score=min(m.score, floor)) for m in more]
        return "cached" if cached else "popularity", _placed(cached + filled)


def _placed(items: list[RecommendedItem]) -> list[RecommendedItem]:
    return [RecommendedItem(item.item_id, item.score, at, item.sources) for at, item in enumerate(items, start=1)]


def _size(user_id: str, packed: bytes) -> int:
    return len(user_id) + len(packed) + 250  # what Python keeps beside them


_PACK = msgspec.msgpack.Encoder()
_UNPACK = msgspec.msgpack.Decoder(list[RecommendedItem])
